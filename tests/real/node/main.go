// A node for the tests' API server: the kubelet's own server and log reader, and its own streaming code for exec and
// port-forward, over a "runtime" whose containers are plain processes of this machine. So kubectl's exec, logs and
// port-forward meet the real protocol at both ends, and no container runtime is needed. There is no isolation whatever.
//
// It is built inside the source tree of Kubernetes by kube-build.sh, and started by kube-up.sh.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"k8s.io/kubernetes/pkg/kubelet/cri/streaming"
	"k8s.io/kubernetes/pkg/kubelet/server"
)

const address = "127.0.0.1"

func main() {
	name := flag.String("name", "node", "what the node is called")
	kubeconfig := flag.String("kubeconfig", "", "how the API server is reached")
	port := flag.Int("port", 0, "where the kubelet's API is served")
	cert := flag.String("cert", "", "the certificate that it is served with")
	key := flag.String("key", "", "the key of that")
	clients := flag.String("client-ca", "", "the CA of those who may ask: the API server")
	folder := flag.String("folder", "", "where logs are kept")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	must(err)
	client, err := kubernetes.NewForConfig(config)
	must(err)
	must(os.MkdirAll(*folder, 0o755))

	containers := newContainers(*folder)
	host := &host{client: client, node: *name, containers: containers, streams: streams(containers)}
	listener, err := net.Listen("tcp", (&net.TCPAddr{IP: net.ParseIP(address), Port: *port}).String())
	must(err)
	// Before the node is known, so that nobody asks it in vain.
	go serve(listener, host, *cert, *key, *clients)
	must(register(client, *name, listener.Addr().(*net.TCPAddr).Port))
	host.follow()
}

// serve answers on the kubelet's paths. Who asks is decided by the client certificate alone: a kubelet would ask the API
// server about it, which is the only one to have such a certificate here.
func serve(listener net.Listener, host *host, cert, key, clients string) {
	pem, err := os.ReadFile(clients)
	must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	handler := server.NewServer(host, nil, nil, false, true, false, false)
	kubelet := &http.Server{
		Handler:   &handler,
		TLSConfig: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
	}
	klog.Fatal(kubelet.ServeTLS(listener, cert, key))
}

// streams is what a container runtime serves by itself: the kubelet passes exec and port-forward on to it.
func streams(runtime streaming.Runtime) streaming.Server {
	listener, err := net.Listen("tcp", address+":0")
	must(err)
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: listener.Addr().String(), Path: "/"}
	streams, err := streaming.NewServer(config, runtime)
	must(err)
	go func() { klog.Fatal(http.Serve(listener, streams)) }()
	return streams
}

// register makes the node known, ready, and reachable at this address.
func register(client kubernetes.Interface, name string, port int) error {
	nodes := client.CoreV1().Nodes()
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}}}
	made, err := nodes.Create(context.TODO(), node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		made, err = nodes.Get(context.TODO(), name, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	now := metav1.NewTime(time.Now())
	made.Status = v1.NodeStatus{
		Addresses: []v1.NodeAddress{
			{Type: v1.NodeInternalIP, Address: address}, {Type: v1.NodeHostName, Address: "localhost"},
		},
		DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: int32(port)}},
		Conditions: []v1.NodeCondition{{
			Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "Serving",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}},
	}
	_, err = nodes.UpdateStatus(context.TODO(), made, metav1.UpdateOptions{})
	return err
}

func must(err error) {
	if err != nil {
		klog.Fatal(err)
	}
}
