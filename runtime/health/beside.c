/* Counting and comparing a frame's rows on another core, while the network computes; helping with its resize before.

   One thread and one job. Whoever needs the result does the work itself where the thread has not begun, so a thread that
   gets no processor costs nothing but having been asked. Python starts the thread (beside.py), which then stays in
   framegate_beside_run.

   To wake a thread that sleeps on an idle processor takes whoever wakes it tens of microseconds, more in a virtual machine, all
   of which the verdict waits. The thread that hands the frame over is awake: it attends for a moment, and takes the job. */

#define _POSIX_C_SOURCE 200809L /* clock_gettime */

#include "../native/preprocess.h"
#include "rows.h"

#include <string.h>

#if !defined(_WIN32)
#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { IDLE, POSTED, RUNNING, DONE };

/* What is counted of one size of frames; beside.py fills it in. Up to `pixels` it stays the same. */
struct job {
    double flat_share;
    int32_t rows, width, blocks, pieces, slots, rank;
    int32_t *sums;
    uint8_t *spare;
    int32_t *histogram;
    struct counts *counts;
    const int64_t *weights, *starts;
    uint8_t *means;
    int64_t *marks;
    uint8_t *known;
    int32_t *farthest;
    uint8_t *equal, *changed;
    int32_t *summary;
    double *content;
    const struct limits *limits;
    int32_t *healthy;
    const uint8_t *pixels; /* of this frame */
    int64_t row_bytes;
    uint8_t *grey;
    int32_t current, previous; /* a negative `previous`: nothing is compared */
    struct shared_resize *resize; /* whoever asked is at work on it, too, and waits for it first; NULL: none */
};

struct beside {
    pthread_mutex_t mutex;
    pthread_cond_t posted, done;
    int32_t state, stopped;
    int32_t attending; /* somebody looks at `state` and need not be woken */
    const struct job *job;
};

/* `state` and `stopped` are written under the mutex; whoever attends reads them without. */
static void set(int32_t *what, int32_t value) { __atomic_store_n(what, value, __ATOMIC_RELEASE); }
static int32_t get(const int32_t *what) { return __atomic_load_n(what, __ATOMIC_ACQUIRE); }

static void work(const struct job *job) {
    if (job->resize) framegate_preprocess_help(job->resize);
    framegate_count_rows(job->pixels, job->row_bytes, job->rows, job->width, job->flat_share, job->grey, job->sums, job->spare,
                         job->histogram, job->counts);
    framegate_content(job->counts, job->rows, job->width, job->content);
    *job->healthy = framegate_healthy(job->content, job->limits);
    if (job->previous >= 0)
        framegate_compare_rows(job->sums, job->rows, job->blocks, job->pieces, job->slots, job->current, job->previous,
                               job->rank, job->weights, job->starts, job->means, job->marks, job->known, job->farthest,
                               job->equal, job->changed, job->summary);
}

EXPORT int32_t framegate_beside_size(void) { return (int32_t)sizeof(struct beside); }

/* beside: framegate_beside_size() bytes, zero. 0 if it worked. */
EXPORT int32_t framegate_beside_open(struct beside *beside) {
    return pthread_mutex_init(&beside->mutex, NULL) || pthread_cond_init(&beside->posted, NULL) ||
           pthread_cond_init(&beside->done, NULL);
}

/* Do what is posted; the mutex is held before and after. */
static void take(struct beside *beside) {
    set(&beside->state, RUNNING);
    pthread_mutex_unlock(&beside->mutex);
    work(beside->job);
    pthread_mutex_lock(&beside->mutex);
    set(&beside->state, DONE);
    pthread_cond_broadcast(&beside->done);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The thread: does what is posted, until framegate_beside_stop. */
EXPORT void framegate_beside_run(struct beside *beside) {
    pthread_mutex_lock(&beside->mutex);
    for (;;) {
        while (beside->state != POSTED && !beside->stopped) pthread_cond_wait(&beside->posted, &beside->mutex);
        if (beside->stopped) break;
        take(beside);
    }
    pthread_mutex_unlock(&beside->mutex);
}

/* Look for a job for so many nanoseconds, and do it. 1 if there was one.

   Others go first wherever they want the processor. A real-time thread, which would not let them, does not attend. */
EXPORT int32_t framegate_beside_attend(struct beside *beside, int64_t most_ns) {
    if (sched_getscheduler(0) != SCHED_OTHER) return 0;
    const int64_t end = now_ns() + most_ns;
    pthread_mutex_lock(&beside->mutex);
    const int alone = !beside->attending && !beside->stopped;
    if (alone) beside->attending = 1;
    pthread_mutex_unlock(&beside->mutex);
    if (!alone) return 0;
    while (get(&beside->state) != POSTED && !get(&beside->stopped) && now_ns() < end) sched_yield();
    pthread_mutex_lock(&beside->mutex);
    beside->attending = 0;
    const int mine = beside->state == POSTED && !beside->stopped;
    if (mine) take(beside);
    pthread_mutex_unlock(&beside->mutex);
    return mine;
}

/* When this comes back, nothing of a job is touched any more but by who asks for its result. */
EXPORT void framegate_beside_stop(struct beside *beside) {
    pthread_mutex_lock(&beside->mutex);
    set(&beside->stopped, 1);
    while (beside->state == RUNNING) pthread_cond_wait(&beside->done, &beside->mutex);
    pthread_cond_signal(&beside->posted);
    pthread_mutex_unlock(&beside->mutex);
}

/* Ask for a frame's rows; `finish` must follow before anything of the job is changed or read. */
EXPORT void framegate_beside_start(struct beside *beside, struct job *job, const uint8_t *pixels, int64_t row_bytes,
                                   uint8_t *grey, int32_t current, int32_t previous, struct shared_resize *resize) {
    job->known[current] = 0;
    job->pixels = pixels, job->row_bytes = row_bytes, job->grey = grey;
    job->current = current, job->previous = previous, job->resize = resize;
    pthread_mutex_lock(&beside->mutex);
    beside->job = job;
    set(&beside->state, POSTED);
    const int attended = beside->attending; /* it looks once more after its last look, under the mutex */
    pthread_mutex_unlock(&beside->mutex);
    if (!attended) pthread_cond_signal(&beside->posted);
}

/* Whether `finish` would come back at once. */
EXPORT int32_t framegate_beside_done(struct beside *beside) { return get(&beside->state) == DONE; }

/* Wait for what was asked for. 1 if the thread did it, 0 if it had not begun, and it was done here. */
EXPORT int32_t framegate_beside_finish(struct beside *beside) {
    pthread_mutex_lock(&beside->mutex);
    const int mine = beside->state == POSTED;
    while (beside->state == RUNNING) pthread_cond_wait(&beside->done, &beside->mutex);
    set(&beside->state, IDLE);
    pthread_mutex_unlock(&beside->mutex);
    if (mine) work(beside->job);
    return !mine;
}
/* Whether what was counted, and is finished, is healthy and resembles no frame before; see RecentFrames.is_good. */
EXPORT int32_t framegate_beside_good(const struct job *job, double still) {
    enum { NEAREST = 1, SOME_EQUAL = 5 }; /* of Change in rows.py */
    return *job->healthy && !job->summary[SOME_EQUAL] && job->summary[NEAREST] > still;
}
#else
EXPORT int32_t framegate_beside_size(void) { return 0; } /* there is no such thread: everybody counts for himself */
#endif
