// Command gpx_braid is the backend of the Grafana data source: Grafana starts it and talks to it over gRPC.
package main

import (
	"os"

	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/braidobs/braid/grafana-plugin/pkg/plugin"
)

func main() {
	// The default registerer is the one whose metrics Grafana collects from plugins.
	factory, err := plugin.Factory(prometheus.DefaultRegisterer)
	if err == nil {
		err = datasource.Manage(plugin.ID, factory, datasource.ManageOpts{})
	}
	if err != nil {
		log.DefaultLogger.Error("the plugin ends", "err", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}
