package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// containers is the runtime: each container is a process with a log.
type containers struct {
	folder  string
	mutex   sync.Mutex
	running map[string]*exec.Cmd
}

func newContainers(folder string) *containers {
	return &containers{folder: folder, running: map[string]*exec.Cmd{}}
}

func containerID(pod *v1.Pod, container string) string { return string(pod.UID) + "-" + container }

func (c *containers) log(id string) string { return filepath.Join(c.folder, id+".log") }

func (c *containers) runs(id string) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.running[id] != nil
}

// start runs what is not running yet: the command of each container, and its arguments.
func (c *containers) start(pod *v1.Pod) error {
	for _, container := range pod.Spec.Containers {
		id := containerID(pod, container.Name)
		if c.runs(id) {
			continue
		}
		words := append(append([]string{}, container.Command...), container.Args...)
		if len(words) == 0 {
			return fmt.Errorf("container %q has no `command`, and there is no image to take one from", container.Name)
		}
		command := exec.Command(words[0], words[1:]...)
		for _, variable := range container.Env {
			command.Env = append(command.Env, variable.Name+"="+variable.Value)
		}
		command.Env = append(command.Env, "PATH="+os.Getenv("PATH"))
		if err := c.run(id, command); err != nil {
			return err
		}
	}
	return nil
}

func (c *containers) run(id string, command *exec.Cmd) error {
	file, err := os.OpenFile(c.log(id), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	command.Stdout, command.Stderr = write, write
	// A group of its own, which ends with this process at the latest.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return err
	}
	write.Close()
	c.mutex.Lock()
	c.running[id] = command
	c.mutex.Unlock()
	go func() {
		defer file.Close()
		for lines := bufio.NewScanner(read); lines.Scan(); {
			// The format of the CRI, which the kubelet's reader expects.
			fmt.Fprintf(file, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), lines.Text())
		}
		command.Wait()
		c.mutex.Lock()
		delete(c.running, id)
		c.mutex.Unlock()
	}()
	return nil
}

func (c *containers) stop(pod *v1.Pod) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, container := range pod.Spec.Containers {
		if command := c.running[containerID(pod, container.Name)]; command != nil {
			syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		}
	}
}

// Exec runs a command beside the container's own. Its streams end when the process does, whoever holds them still.
func (c *containers) Exec(
	id string, words []string, stdin io.Reader, stdout, stderr io.WriteCloser, tty bool,
	_ <-chan remotecommand.TerminalSize,
) error {
	if !c.runs(id) {
		return fmt.Errorf("container %q does not run", id)
	}
	if tty {
		return fmt.Errorf("this node has no terminals")
	}
	command := exec.Command(words[0], words[1:]...)
	command.Stdout, command.Stderr = stdout, stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if stdin != nil {
		pipe, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			io.Copy(pipe, stdin)
			pipe.Close()
		}()
	}
	err := command.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return &utilexec.CodeExitError{Err: err, Code: exit.ExitCode()}
	}
	return err
}

// Attach is never asked for: see host.GetAttach.
func (c *containers) Attach(
	string, io.Reader, io.WriteCloser, io.WriteCloser, bool, <-chan remotecommand.TerminalSize,
) error {
	return fmt.Errorf("this node attaches to nothing")
}

// PortForward passes bytes on to a port of this machine, where a container's process listens.
func (c *containers) PortForward(_ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	near, err := net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer near.Close()
	go func() {
		io.Copy(near, stream)
		near.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, near)
	return err
}
