package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
)

// The sizes of the plot, in pixels.
const (
	plotWidth   = 860
	labelWidth  = 190 // for the names on the left
	valuesWidth = 190 // for the figures on the right
	rowHeight   = 22
	panelHead   = 34
	legendSpace = 48
)

// style makes the plot readable on a light and on a dark page.
const style = `
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.head { font-weight: 600; }
.soft { fill: #59636e; }
.num { font-variant-numeric: tabular-nums; text-anchor: end; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.other { --c: #6e7781; } .ours { --c: #0969da; }
.bar { stroke: var(--c); stroke-width: 2; }
.dot { fill: var(--c); }
.ring { fill: none; stroke: var(--c); stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .soft { fill: #9198a1; } .grid { stroke: #3d444d; }
  .other { --c: #9198a1; } .ours { --c: #4493f8; }
}`

// svg plots the latencies under load on a logarithmic axis: for each candidate a line from
// p50 to p99.
func (r *results) svg() string {
	var b strings.Builder
	rows := len(r.loopback)
	height := legendSpace + len(r.settings.conns)*(panelHead+20) + rows*rowHeight
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="Latencies of the candidates">`, plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, "<style>%s</style>\n", style)

	lo, hi := r.latencyRange()
	x := func(d time.Duration) float64 {
		const width = plotWidth - labelWidth - valuesWidth
		return labelWidth + width*(math.Log10(float64(d))-lo)/(hi-lo)
	}
	fmt.Fprintf(&b, `<text class="head" x="8" y="18">Latency under load</text><g class="other"><circle class="dot" cx="%d" cy="14" r="4"/><circle class="ring" cx="%d" cy="14" r="4"/><line class="bar" x1="%d" x2="%d" y1="9" y2="19"/></g>`,
		labelWidth+4, labelWidth+60, labelWidth+116, labelWidth+116)
	for i, name := range []string{"p50", "p95", "p99"} {
		fmt.Fprintf(&b, `<text class="soft" x="%d" y="18">%s</text><text class="soft num" x="%d" y="18">%s</text>`,
			labelWidth+14+56*i, name, plotWidth-128+60*i, name)
	}
	b.WriteString("\n")

	y := float64(legendSpace)
	for _, conns := range r.settings.conns {
		bottom := y + panelHead - 10 + float64(rows/len(r.settings.conns)*rowHeight)
		fmt.Fprintf(&b, `<text class="head" x="8" y="%.0f">%s</text>`, y+6, connections(conns))
		for e := math.Ceil(lo); e <= hi; e++ {
			d := time.Duration(math.Pow(10, e))
			fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/><text class="soft" text-anchor="middle" x="%.1f" y="%.0f">%s</text>`,
				x(d), x(d), y+12, bottom, x(d), y+6, tick(d))
		}
		b.WriteString("\n")
		y += panelHead
		for _, l := range r.loopback {
			if l.conns != conns {
				continue
			}
			class := "other"
			if strings.HasPrefix(l.candidate.Name, "Latchkey") {
				class = "ours"
			}
			fmt.Fprintf(&b, `<g class="%s"><text x="8" y="%.0f">%s</text>`, class, y+4, html.EscapeString(l.candidate.Name))
			p50, p95, p99 := load.Median(l.p50), load.Median(l.p95), load.Median(l.p99)
			fmt.Fprintf(&b, `<line class="bar" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/>`, x(p50)+4, x(p99), y, y)
			fmt.Fprintf(&b, `<circle class="dot" cx="%.1f" cy="%.0f" r="4"/><circle class="ring" cx="%.1f" cy="%.0f" r="4"/><line class="bar" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/>`,
				x(p50), y, x(p95), y, x(p99), x(p99), y-5, y+5)
			for i, d := range []time.Duration{p50, p95, p99} {
				fmt.Fprintf(&b, `<text class="num" x="%d" y="%.0f">%s</text>`, plotWidth-128+60*i, y+4, short(d))
			}
			b.WriteString("</g>\n")
			y += rowHeight
		}
		y += 20
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// latencyRange returns the ends of the axis as powers of ten, with a margin.
func (r *results) latencyRange() (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, l := range r.loopback {
		lo, hi = min(lo, math.Log10(float64(load.Median(l.p50)))), max(hi, math.Log10(float64(load.Median(l.p99))))
	}
	return lo - 0.1, max(hi, lo+1) + 0.1
}

// tick formats a power of ten.
func tick(d time.Duration) string {
	if d < time.Millisecond {
		return fmt.Sprintf("%d µs", d.Microseconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
