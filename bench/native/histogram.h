/* Times in constant memory: buckets no wider than 1/128 of what they hold. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_STEPS 128   /* buckets for each doubling */
#define HISTOGRAM_DOUBLINGS 36 /* up to 255 << 34 ns, more than an hour */

struct histogram {
    uint64_t count, sum, max;
    uint64_t buckets[HISTOGRAM_DOUBLINGS * HISTOGRAM_STEPS];
};

void histogram_add(struct histogram *histogram, uint64_t ns);

/* The value below which this part of all lie, in nanoseconds; off by 0.4 % at most. */
double histogram_quantile(const struct histogram *histogram, double part);

/* A JSON object of mean, p50, p90, p99, p999 and max in microseconds; null if there is nothing in it. */
void histogram_print(const struct histogram *histogram, FILE *out);

#endif
