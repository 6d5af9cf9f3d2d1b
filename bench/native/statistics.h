/* What came back. */
#ifndef STATISTICS_H
#define STATISTICS_H

#include "histogram.h"

struct statistics {
    uint64_t requests;                         /* answered whole */
    uint64_t errors;                           /* not answered, or with what is no answer */
    uint64_t lost;                             /* streams without their end */
    uint64_t bytes, events;                    /* received */
    uint64_t merged;                           /* events that came in one piece with an earlier one of their stream */
    uint64_t behind;                           /* requests of an open loop for which no connection was free */
    uint64_t status[1000];                     /* answers of each status */
    double seconds;                            /* from the first request to the last answer */
    struct histogram latency;                  /* from when a request was due to its whole answer */
    struct histogram first_event, event_delay; /* from sending the request; from writing the event */
};

#endif
