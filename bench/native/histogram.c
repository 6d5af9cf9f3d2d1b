#include "histogram.h"

#include "common.h"

/* Below 128 ns a bucket holds one value; above, bucket widths double with the values. */
static size_t bucket_of(uint64_t ns) {
    if (ns < HISTOGRAM_STEPS) return (size_t)ns;
    unsigned shift = 63 - 7 - (unsigned)__builtin_clzll(ns);
    size_t bucket = (size_t)shift * HISTOGRAM_STEPS + (size_t)(ns >> shift);
    return bucket < HISTOGRAM_DOUBLINGS * HISTOGRAM_STEPS ? bucket : HISTOGRAM_DOUBLINGS * HISTOGRAM_STEPS - 1;
}

static double middle_of(size_t bucket) {
    if (bucket < 2 * HISTOGRAM_STEPS) return (double)bucket;
    unsigned shift = (unsigned)(bucket / HISTOGRAM_STEPS - 1);
    uint64_t low = (uint64_t)(bucket - (size_t)shift * HISTOGRAM_STEPS) << shift;
    return (double)low + (double)(1ull << shift) / 2;
}

void histogram_add(struct histogram *histogram, uint64_t ns) {
    histogram->count++;
    histogram->sum += ns;
    if (ns > histogram->max) histogram->max = ns;
    histogram->buckets[bucket_of(ns)]++;
}

double histogram_quantile(const struct histogram *histogram, double part) {
    double wanted = part * (double)histogram->count;
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < LENGTH(histogram->buckets); bucket++) {
        seen += histogram->buckets[bucket];
        if (seen > 0 && (double)seen >= wanted) {
            double middle = middle_of(bucket);
            return middle < (double)histogram->max ? middle : (double)histogram->max;
        }
    }
    return (double)histogram->max;
}

void histogram_print(const struct histogram *histogram, FILE *out) {
    if (histogram->count == 0) {
        fputs("null", out);
        return;
    }
    fprintf(out, "{\"mean\":%.2f,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f}",
            (double)histogram->sum / (double)histogram->count / 1e3, histogram_quantile(histogram, 0.5) / 1e3,
            histogram_quantile(histogram, 0.9) / 1e3, histogram_quantile(histogram, 0.99) / 1e3,
            histogram_quantile(histogram, 0.999) / 1e3, (double)histogram->max / 1e3);
}
