package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// upTo returns the numbers 1 to n, each plus an offset.
func upTo(n int, offset float64) (values []float64) {
	for i := range n {
		values = append(values, float64(i+1)+offset)
	}
	return values
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values  []float64
		q, want float64
	}{
		{[]float64{7}, 0, 7},
		{[]float64{7}, 0.5, 7},
		{[]float64{7}, 1, 7},
		{[]float64{1, 2}, 0.5, 1.5},
		{[]float64{1, 2, 3}, 0.5, 2},
		{[]float64{1, 2, 3, 4}, 0.25, 1.75},
		{[]float64{1, 2, 3, 4}, 0.75, 3.25},
		{upTo(101, -1), 0.95, 95},
		{upTo(10, 0), 0, 1},
		{upTo(10, 0), 1, 10},
		{[]float64{3, 3, 3}, 0.95, 3},
	} {
		if got := quantile(c.values, c.q); !near(got, c.want) {
			t.Errorf("quantile(%v, %v): got %v, want %v", c.values, c.q, got, c.want)
		}
	}
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("median(9, 1, 5): got %v, want 5", got)
	}
}

func TestKolmogorovSmirnovStatistic(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b []float64
		want float64
	}{
		{"equal samples", []float64{1, 2, 3}, []float64{1, 2, 3}, 0},
		{"equal values", []float64{1, 1, 1}, []float64{1, 1}, 0},
		{"disjoint", []float64{1, 2}, []float64{3, 4}, 1},
		{"disjoint, in reverse", []float64{3, 4}, []float64{1, 2, 2.5}, 1},
		{"half overlapping", []float64{1, 2, 3, 4}, []float64{3, 4, 5, 6}, 0.5},
		{"one of three larger", []float64{1, 2, 3}, []float64{1, 2, 9}, 1.0 / 3},
		{"ties", []float64{1, 1, 2, 2}, []float64{1, 2, 2, 2}, 0.25},
		{"different sizes", []float64{1, 2, 3, 4, 5}, []float64{2.5}, 0.6},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := kolmogorovSmirnov(c.a, c.b); !near(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if got := kolmogorovSmirnov(c.b, c.a); !near(got, c.want) {
				t.Errorf("with the samples exchanged: got %v, want %v", got, c.want)
			}
		})
	}
}

func TestCriticalValue(t *testing.T) {
	// From tables of the two-sample test for large samples: 1.358 times the square root.
	for _, c := range []struct {
		n, m int
		want float64
	}{{100, 100, 0.1921}, {150, 150, 0.1568}, {200, 200, 0.1358}, {50, 200, 0.2147}} {
		if got := criticalKS(c.n, c.m); math.Abs(got-c.want) > 0.0001 {
			t.Errorf("criticalKS(%d, %d): got %.4f, want %.4f", c.n, c.m, got, c.want)
		}
	}
}

// The test reports a difference by chance in about 5% of the cases.
func TestFalseAlarmRateOfTheKolmogorovSmirnovTest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const runs, n = 2000, 150
	alarms := 0
	a, b := make([]float64, n), make([]float64, n)
	for range runs {
		for i := range n {
			a[i], b[i] = random.NormFloat64(), random.NormFloat64()
		}
		slices.Sort(a)
		slices.Sort(b)
		if kolmogorovSmirnov(a, b) > criticalKS(n, n) {
			alarms++
		}
	}
	if share := float64(alarms) / runs; share < 0.02 || share > 0.07 {
		t.Errorf("got false alarms in %.1f%% of the tests, want about 5%%", 100*share)
	}
}

func TestDifferenceOfMedians(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name       string
		a, b       []float64
		difference float64
		zero       bool // whether 0 is within the interval
	}{
		{"equal samples", upTo(100, 0), upTo(100, 0), 0, true},
		{"a little more", upTo(100, 2), upTo(100, 0), 2, true},
		{"much more", upTo(100, 50), upTo(100, 0), 50, false},
		{"much less", upTo(100, 0), upTo(50, 100), -75, false},
		{"constants", []float64{2, 2, 2}, []float64{1, 1}, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := slices.Clone(c.a), slices.Clone(c.b)
			got, within := differenceOfMedians(a, b, 2000, random)
			if !near(got, c.difference) {
				t.Errorf("got the difference %v, want %v", got, c.difference)
			}
			if within.low > got || within.high < got || (within.low <= 0 && within.high >= 0) != c.zero {
				t.Errorf("got the interval %+v of %v, want 0 within it: %t", within, got, c.zero)
			}
			if !slices.Equal(a, c.a) || !slices.Equal(b, c.b) {
				t.Error("the samples were changed")
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		c    comparison
		want string
	}{
		{comparison{0.1, 0.15, 0.5, interval{-1, 2}}, "no separation"},
		{comparison{0.2, 0.15, 0.5, interval{0.1, 2}}, "they differ"},
		{comparison{0.2, 0.15, -0.5, interval{-2, -0.1}}, "they differ"},
		{comparison{0.2, 0.15, 0, interval{-1, 1}}, "the distributions differ, the medians do not"},
		{comparison{0.1, 0.15, 0.5, interval{0.1, 2}}, "the medians differ, the distributions do not"},
	} {
		if got := c.c.verdict(); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.c, got, c.want)
		}
	}
	// Samples that the tool must distinguish, and equal ones.
	random := rand.New(rand.NewPCG(1, 2))
	sample := func(around float64) (values []float64) {
		for range 200 {
			values = append(values, around+5*random.NormFloat64())
		}
		slices.Sort(values)
		return values
	}
	hash, quick := sample(100), sample(100.0/2)
	if got := compare(hash, quick, random).verdict(); got != "they differ" {
		t.Errorf("half the time: got %q", got)
	}
	if got := compare(hash, sample(103), random).verdict(); got != "they differ" {
		t.Errorf("3%% more: got %q", got)
	}
	if got := compare(hash, slices.Clone(hash), random).verdict(); got != "no separation" {
		t.Errorf("equal samples: got %q", got)
	}
}

func TestHistogram(t *testing.T) {
	for _, c := range []struct {
		name      string
		values    []float64
		low, high float64
		want      string
	}{
		{"one in each bin", []float64{0, 1, 2, 3}, 0, 4, "████"},
		{"all in the first bin", []float64{0, 0.1}, 0, 4, "█   "},
		{"outside the bounds", []float64{-5, 3, 4, 99}, 0, 4, "▃  █"},
		{"half as many in a bin", []float64{0, 0, 1, 2, 2}, 0, 4, "█▄█ "},
		{"equal values", []float64{7, 7}, 7, 7, "█   "},
	} {
		if got := histogram(c.values, c.low, c.high, 4); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestRow(t *testing.T) {
	if got, want := row("a", 3, 0.0456, 123.456), "| a | 3 | 0.046 | 123.5 |"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
