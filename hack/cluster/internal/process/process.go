// Package process starts long-running programs and finds them again in a later
// run, without ever mistaking another program for one of them.
package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// marker stands in the environment of every program that Start started. A
// shim that containerd started inherits it, so that programs are found even
// if the run that started them was killed before it could record them.
const marker = "TRAINYARD_CLUSTER_COMPONENT"

// Process is a started program. A process id alone says little once the
// program has ended, so the time it started and the boot it belongs to are
// part of its identity.
type Process struct {
	Name      string `json:"name"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks after boot
	Boot      string `json:"boot"`
	Exe       string `json:"exe"`
	Log       string `json:"log"`
}

// Start runs a program in a session of its own, so that it outlives this
// program and its terminal. Its output is appended to the log file.
func Start(name, path string, args []string, logFile string) (Process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Process{}, fmt.Errorf("opening the log of %s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	cmd.Env = environment(name, filepath.Dir(path))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Process{}, fmt.Errorf("starting %s: %w", name, err)
	}
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		return Process{}, fmt.Errorf("%s ended at once; see %s: %w", name, logFile, err)
	}
	p.Name, p.Log = name, logFile
	return p, nil
}

// environment is small on purpose: proxies, kubeconfigs and the like of the
// caller's shell must not change what a component does.
func environment(name, binDir string) []string {
	return []string{
		marker + "=" + name,
		"PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"LANG=C.UTF-8",
	}
}

// identify reads what the kernel knows of a process id now.
func identify(pid int) (Process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Process{}, err
	}
	state, start, err := parseStat(string(stat))
	if err != nil {
		return Process{}, err
	}
	if state == 'Z' || state == 'X' {
		return Process{}, os.ErrProcessDone
	}
	exe, err := os.Readlink(dir + "/exe")
	if err != nil {
		return Process{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Process{}, err
	}
	return Process{PID: pid, StartTime: start, Boot: strings.TrimSpace(string(boot)), Exe: trimDeleted(exe)}, nil
}

// parseStat takes the state and the start time out of /proc/PID/stat. The
// second field, the program's name, may itself hold blanks and parentheses.
func parseStat(stat string) (state byte, start uint64, err error) {
	const stateField, startField = 0, 19 // counted after the name
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) <= startField {
		return 0, 0, fmt.Errorf("unexpected process status %q", stat)
	}
	start, err = strconv.ParseUint(fields[startField], 10, 64)
	return fields[stateField][0], start, err
}

// trimDeleted removes what the kernel appends when the file has been replaced.
func trimDeleted(exe string) string { return strings.TrimSuffix(exe, " (deleted)") }

// same says whether what runs now under p's id is p.
func (p Process) same(now Process) bool {
	return p.PID == now.PID && p.StartTime == now.StartTime && p.Boot == now.Boot && p.Exe == now.Exe
}

// Alive says whether the very program that was started is still running.
func (p Process) Alive() bool {
	now, err := identify(p.PID)
	return err == nil && p.same(now)
}

// Marked finds every running program with the marker, recorded or not.
func Marked() []Process {
	var found []Process
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, err := os.ReadFile(dir + "/environ")
		if err != nil {
			continue // ended meanwhile, or not ours to read
		}
		name, ok := markedName(env)
		if !ok {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if p, err := identify(pid); err == nil && pid != os.Getpid() {
			p.Name = name
			found = append(found, p)
		}
	}
	return found
}

func markedName(environ []byte) (string, bool) {
	for _, entry := range bytes.Split(environ, []byte{0}) {
		if name, ok := strings.CutPrefix(string(entry), marker+"="); ok {
			return name, true
		}
	}
	return "", false
}

// Stop ends programs: politely, then, past the grace period, for good. A zero
// grace period skips the politeness.
func Stop(programs []Process, grace time.Duration) error {
	if grace > 0 {
		signalAll(programs, syscall.SIGTERM)
		if waitGone(programs, grace) {
			return nil
		}
	}
	signalAll(programs, syscall.SIGKILL)
	const limit = 10 * time.Second
	if waitGone(programs, limit) {
		return nil
	}
	for _, p := range programs {
		if p.Alive() {
			return fmt.Errorf("process %d (%s) is still there %s after SIGKILL; look at /proc/%d/stack", p.PID, p.Name, limit, p.PID)
		}
	}
	return nil
}

func signalAll(programs []Process, s syscall.Signal) {
	for _, p := range programs {
		if p.Alive() {
			_ = syscall.Kill(p.PID, s) // it may have ended just now
		}
	}
}

func waitGone(programs []Process, limit time.Duration) bool {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		alive := false
		for _, p := range programs {
			alive = alive || p.Alive()
		}
		if !alive || time.Now().After(end) {
			return !alive
		}
	}
}
