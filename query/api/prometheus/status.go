package prometheus

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// Status is what the process says about itself. A nil function and an empty list are answered by nothing.
type Status struct {
	Config    func() (string, error) // the configuration in effect as YAML, without secrets
	Flags     map[string]string      // settings by the names that the flags of Prometheus have
	Began     time.Time
	Reloaded  func() (at time.Time, ok bool) // when rules were last read, and whether that went well; nil: when it began
	Corrupt   func() int64                   // damaged parts
	Retention string
}

// jsonResult returns a result of what encoding/json knows how to write.
func jsonResult(v any) (result, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return result{}, fmt.Errorf("encode the answer: %w", err)
	}
	return result{data: func(dst []byte) []byte { return append(dst, b...) }}, nil
}

func (a *API) config(*http.Request) (result, error) {
	text := ""
	if a.Status.Config != nil {
		var err error
		if text, err = a.Status.Config(); err != nil {
			return result{}, fmt.Errorf("print the configuration: %w", err)
		}
	}
	return jsonResult(map[string]string{"yaml": text})
}

func (a *API) flags(*http.Request) (result, error) {
	flags := a.Status.Flags
	if flags == nil {
		flags = map[string]string{}
	}
	return jsonResult(flags)
}

// runtimeInfo is in the shape of Prometheus.
func (a *API) runtimeInfo(*http.Request) (result, error) {
	var info struct {
		StartTime           time.Time `json:"startTime"`
		CWD                 string    `json:"CWD"`
		Hostname            string    `json:"hostname"`
		ServerTime          time.Time `json:"serverTime"`
		ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
		LastConfigTime      time.Time `json:"lastConfigTime"`
		CorruptionCount     int64     `json:"corruptionCount"`
		GoroutineCount      int       `json:"goroutineCount"`
		GOMAXPROCS          int       `json:"GOMAXPROCS"`
		GOMEMLIMIT          int64     `json:"GOMEMLIMIT"`
		GOGC                string    `json:"GOGC"`
		GODEBUG             string    `json:"GODEBUG"`
		StorageRetention    string    `json:"storageRetention"`
	}
	var err error
	if info.CWD, err = os.Getwd(); err != nil {
		info.CWD = "<error retrieving current working directory>"
	}
	if info.Hostname, err = os.Hostname(); err != nil {
		info.Hostname = "<error retrieving hostname>"
	}
	info.StartTime, info.ServerTime = a.Status.Began.UTC(), a.Now().UTC()
	info.LastConfigTime, info.ReloadConfigSuccess = info.StartTime, true
	if a.Status.Reloaded != nil {
		info.LastConfigTime, info.ReloadConfigSuccess = a.Status.Reloaded()
	}
	if a.Status.Corrupt != nil {
		info.CorruptionCount = a.Status.Corrupt()
	}
	info.GoroutineCount, info.GOMAXPROCS, info.GOMEMLIMIT = runtime.NumGoroutine(), runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1)
	info.GOGC, info.GODEBUG, info.StorageRetention = os.Getenv("GOGC"), os.Getenv("GODEBUG"), a.Status.Retention
	return jsonResult(info)
}

// walReplay says that the log has been replayed: nothing is served before.
func (*API) walReplay(*http.Request) (result, error) {
	return jsonResult(map[string]int{"min": 0, "max": 0, "current": 0})
}
