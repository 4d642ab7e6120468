package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
	"k8s.io/klog/v2"

	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/cri/streaming"
	"k8s.io/kubernetes/pkg/kubelet/cri/streaming/portforward"
	"k8s.io/kubernetes/pkg/kubelet/cri/streaming/remotecommand"
	"k8s.io/kubernetes/pkg/kubelet/kuberuntime/logs"
	"k8s.io/kubernetes/pkg/kubelet/server"
)

// host is what the kubelet's server asks. Statistics, which it would ask for too, are not here: the embedded interface
// is nil, and a request for them fails.
type host struct {
	server.HostInterface
	client     kubernetes.Interface
	node       string
	containers *containers
	streams    streaming.Server
	pods       cache.Store
}

// follow runs the pods that are bound to this node, and never returns.
func (h *host) follow() {
	bound := fields.OneTermEqualSelector("spec.nodeName", h.node)
	source := cache.NewListWatchFromClient(h.client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll, bound)
	pods, controller := cache.NewInformer(source, &v1.Pod{}, 0, cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object interface{}) { h.settle(object.(*v1.Pod)) },
		UpdateFunc: func(_, object interface{}) { h.settle(object.(*v1.Pod)) },
		DeleteFunc: func(object interface{}) {
			if pod, ok := object.(*v1.Pod); ok {
				h.containers.stop(pod)
			}
		},
	})
	h.pods = pods
	controller.Run(make(chan struct{}))
}

// settle makes true what the pod asks for: that it runs, or that it is gone.
func (h *host) settle(pod *v1.Pod) {
	pods := h.client.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		h.containers.stop(pod)
		// The node has the last word on a pod that is to go.
		now := int64(0)
		if err := pods.Delete(context.TODO(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			klog.Errorf("%s: %v", pod.Name, err)
		}
		return
	}
	if pod.Status.Phase == v1.PodRunning {
		return
	}
	if err := h.containers.start(pod); err != nil {
		klog.Errorf("%s: %v", pod.Name, err)
		return
	}
	if _, err := pods.UpdateStatus(context.TODO(), running(pod), metav1.UpdateOptions{}); err != nil {
		klog.Errorf("%s: %v", pod.Name, err)
	}
}

// running is the pod as it is once its containers are started.
func running(pod *v1.Pod) *v1.Pod {
	pod, now, yes := pod.DeepCopy(), metav1.NewTime(time.Now()), true
	pod.Status.Phase = v1.PodRunning
	pod.Status.HostIP, pod.Status.PodIP, pod.Status.StartTime = address, address, &now
	for _, kind := range []v1.PodConditionType{v1.PodScheduled, v1.PodInitialized, v1.ContainersReady, v1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions,
			v1.PodCondition{Type: kind, Status: v1.ConditionTrue, LastTransitionTime: now})
	}
	for _, container := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, v1.ContainerStatus{
			Name: container.Name, Image: container.Image, Ready: true, Started: &yes,
			ContainerID: "process://" + containerID(pod, container.Name),
			State:       v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return pod
}

func (h *host) GetPodByName(namespace, name string) (*v1.Pod, bool) {
	object, exists, err := h.pods.GetByKey(namespace + "/" + name)
	if err != nil || !exists {
		return nil, false
	}
	return object.(*v1.Pod), true
}

func (h *host) GetPods() []*v1.Pod {
	var pods []*v1.Pod
	for _, object := range h.pods.List() {
		pods = append(pods, object.(*v1.Pod))
	}
	return pods
}

func (h *host) GetKubeletContainerLogs(
	ctx context.Context, podFullName, containerName string, options *v1.PodLogOptions, stdout, stderr io.Writer,
) error {
	id, err := h.container(podFullName, containerName)
	if err != nil {
		return err
	}
	read := logs.NewLogOptions(options, time.Now())
	return logs.ReadLogs(ctx, h.containers.log(id), id, read, asked{containers: h.containers}, stdout, stderr)
}

func (h *host) GetExec(
	podFullName string, _ types.UID, containerName string, cmd []string, options remotecommand.Options,
) (*url.URL, error) {
	id, err := h.container(podFullName, containerName)
	if err != nil {
		return nil, err
	}
	response, err := h.streams.GetExec(&runtimeapi.ExecRequest{
		ContainerId: id, Cmd: cmd,
		Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.TTY,
	})
	if err != nil {
		return nil, err
	}
	return url.Parse(response.Url)
}

func (h *host) GetAttach(string, types.UID, string, remotecommand.Options) (*url.URL, error) {
	return nil, fmt.Errorf("this node attaches to nothing")
}

func (h *host) GetPortForward(
	_, _ string, uid types.UID, options portforward.V4Options,
) (*url.URL, error) {
	response, err := h.streams.GetPortForward(
		&runtimeapi.PortForwardRequest{PodSandboxId: string(uid), Port: options.Ports})
	if err != nil {
		return nil, err
	}
	return url.Parse(response.Url)
}

func (h *host) ResyncInterval() time.Duration { return time.Minute }

func (h *host) LatestLoopEntryTime() time.Time { return time.Now() }

func (h *host) container(podFullName, name string) (string, error) {
	podName, namespace, err := kubecontainer.ParsePodFullName(podFullName)
	if err != nil {
		return "", err
	}
	pod, found := h.GetPodByName(namespace, podName)
	if !found || kubecontainer.GetContainerSpec(pod, name) == nil {
		return "", fmt.Errorf("container %q of pod %q is not here", name, podFullName)
	}
	return containerID(pod, name), nil
}

// asked is as much of a runtime's API as the reader of logs asks for: whether there is more to come.
type asked struct {
	internalapi.RuntimeService
	containers *containers
}

func (a asked) ContainerStatus(id string) (*runtimeapi.ContainerStatus, error) {
	state := runtimeapi.ContainerState_CONTAINER_EXITED
	if a.containers.runs(id) {
		state = runtimeapi.ContainerState_CONTAINER_RUNNING
	}
	return &runtimeapi.ContainerStatus{Id: id, State: state}, nil
}
