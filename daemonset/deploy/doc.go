// Package deploy holds what Braid is installed with, and the tests of it: a Helm chart for the agent and the server
// (helm/braid), manifests made from the chart for kustomize (kustomize), units of systemd (systemd), and a linter of the
// Dockerfile (dockerfile, a module of its own). The package itself has no code.
//
// The tests here need nothing; with the tag long (make chart) the chart is rendered and validated with helm and
// kubeconform. The flag -rewrite, as in make chart ARGS=-rewrite, makes anew what is made from the chart.
package deploy
