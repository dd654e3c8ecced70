// kubelab is a Kubernetes in one program: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubelet, chosen by the
// first argument, each the released code from its public Go modules. The tests of tests/cluster start it on one machine.
package main

import (
	"context"
	"fmt"
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"

	"github.com/spf13/cobra"

	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var components = map[string]func() *cobra.Command{
	"apiserver":   apiserver.NewAPIServerCommand,
	"controllers": controllers.NewControllerManagerCommand,
	"scheduler":   func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":     func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kubelab etcd|apiserver|controllers|scheduler|kubelet OPTION...")
		os.Exit(2)
	}
	name := os.Args[1]
	os.Args = os.Args[1:] // each component reads its own options from os.Args
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	command, found := components[name]
	if !found {
		fmt.Fprintf(os.Stderr, "kubelab: there is no component %q\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(command()))
}
