package main

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// machine describes the machine and the versions that were measured.
type machine struct {
	cpu, system string
	cores       int
	date        time.Time
	versions    map[string]string // by module
}

func thisMachine() machine {
	m := machine{
		cpu: cpuName(), system: runtime.GOOS + "/" + runtime.GOARCH, cores: runtime.GOMAXPROCS(0),
		date: time.Now().UTC(), versions: make(map[string]string),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			m.versions[dep.Path] = dep.Version
		}
	}
	return m
}

// cpuName returns the processor's name on Linux.
func cpuName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
