package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// quantile returns the q-quantile of sorted values. It interpolates linearly.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := math.Floor(at)
	low := sorted[int(below)]
	high := sorted[int(math.Ceil(at))]
	return low + (high-low)*(at-below)
}

// median sorts values and returns their median.
func median(values []float64) float64 {
	slices.Sort(values)
	return quantile(values, 0.5)
}

// kolmogorovSmirnov returns the statistic of the two-sample Kolmogorov-Smirnov test: the
// largest distance between the empirical distribution functions. The samples are sorted.
func kolmogorovSmirnov(a, b []float64) float64 {
	var i, j int
	var largest float64
	for i < len(a) && j < len(b) {
		at := min(a[i], b[j])
		for i < len(a) && a[i] == at {
			i++
		}
		for j < len(b) && b[j] == at {
			j++
		}
		distance := math.Abs(float64(i)/float64(len(a)) - float64(j)/float64(len(b)))
		largest = max(largest, distance)
	}
	return largest
}

// criticalKS returns the critical value of the statistic at the 5% level, for samples of
// these sizes.
func criticalKS(n, m int) float64 {
	c := math.Sqrt(-math.Log(0.05/2) / 2) // 1.358
	return c * math.Sqrt(float64(n+m)/float64(n*m))
}

// interval is a bootstrap 95% interval.
type interval struct{ low, high float64 }

// differenceOfMedians returns the median of a minus the median of b, and its percentile
// bootstrap 95% interval.
func differenceOfMedians(a, b []float64, rounds int, random *rand.Rand) (float64, interval) {
	difference := median(slices.Clone(a)) - median(slices.Clone(b))
	resampled := make([]float64, rounds)
	as, bs := make([]float64, len(a)), make([]float64, len(b))
	for r := range resampled {
		for i := range as {
			as[i] = a[random.IntN(len(a))]
		}
		for i := range bs {
			bs[i] = b[random.IntN(len(b))]
		}
		resampled[r] = median(as) - median(bs)
	}
	slices.Sort(resampled)
	return difference, interval{quantile(resampled, 0.025), quantile(resampled, 0.975)}
}

// comparison compares two samples.
type comparison struct {
	d, critical float64  // the Kolmogorov-Smirnov statistic and its critical value
	difference  float64  // of the medians
	within      interval // of the difference
}

// compare compares two sorted samples.
func compare(a, b []float64, random *rand.Rand) comparison {
	difference, within := differenceOfMedians(a, b, 10_000, random)
	return comparison{kolmogorovSmirnov(a, b), criticalKS(len(a), len(b)), difference, within}
}

// verdict returns the result in words.
func (c comparison) verdict() string {
	distributions := c.d > c.critical
	medians := c.within.low > 0 || c.within.high < 0
	switch {
	case distributions && medians:
		return "they differ"
	case distributions:
		return "the distributions differ, the medians do not"
	case medians:
		return "the medians differ, the distributions do not"
	}
	return "no separation"
}

// histogram draws the distribution of values between two bounds, with a character for each
// bin. Values outside the bounds are counted in the outermost bins.
func histogram(values []float64, low, high float64, bins int) string {
	counts := make([]int, bins)
	for _, v := range values {
		bin := 0
		if high > low {
			bin = int((v - low) / (high - low) * float64(bins))
		}
		counts[min(max(bin, 0), bins-1)]++
	}
	most := slices.Max(counts)
	bars := []rune(" ▁▂▃▄▅▆▇█")
	var drawn strings.Builder
	for _, n := range counts {
		height := 0
		if n > 0 {
			height = 1 + (n*(len(bars)-2))/most
		}
		drawn.WriteRune(bars[min(height, len(bars)-1)])
	}
	return drawn.String()
}

// row returns a row of a Markdown table.
func row(cells ...any) string {
	var b strings.Builder
	for _, cell := range cells {
		switch v := cell.(type) {
		case float64:
			fmt.Fprintf(&b, "| %s ", milliseconds(v))
		default:
			fmt.Fprintf(&b, "| %v ", v)
		}
	}
	return b.String() + "|"
}

// milliseconds prints three decimals of a small number, and one of a large number.
func milliseconds(v float64) string {
	if math.Abs(v) < 10 {
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.1f", v)
}
