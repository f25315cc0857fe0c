/* A V4L2 camera where there is none: preloaded into a test's process, it answers for the device /dev/full.
 *
 *     cc -shared -fPIC -o v4l2_emulator.so v4l2_emulator.c -ldl
 *     LD_PRELOAD=v4l2_emulator.so V4L2_CONTROL=file V4L2_JPEG=picture.jpg python ...
 *
 * The first word of the control file, read again at each step, says how the camera is: ok, busy, gone (unplugged),
 * silent, realtime (stamps of another clock), unstamped, late (stamps 300 ms old), fixed (refuses to be configured).
 * One process at a time may stream, as with a real driver: the lock is a file beside the control file.
 * YUYV, NV12 and MJPG in 320x240 and 640x480, 30 frames a second. The frame's number stands in 32 blocks along the top.
 * What it cannot show: a real driver's habits, a USB bus, exposure.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define DEVICE "/dev/full"
#define BUFFERS 10
#define ROOM (640 * 480 * 2)

static int device = -1, buffers, queued[BUFFERS], queue_length, exposure, manual;
static uint32_t width = 640, height = 480, format = V4L2_PIX_FMT_YUYV, frame;
static unsigned char *memory[BUFFERS];

static int mode_is(const char *name) {
    char word[32] = "ok";
    FILE *file = fopen(getenv("V4L2_CONTROL"), "r");
    if (file) {
        if (fscanf(file, "%31s", word) != 1) strcpy(word, "ok");
        fclose(file);
    }
    return !strcmp(word, name);
}

static int lock_or_not(int operation) {
    static int lock = -1;
    if (lock < 0) {
        char path[4096];
        snprintf(path, sizeof path, "%s.lock", getenv("V4L2_CONTROL"));
        lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    }
    return flock(lock, operation | LOCK_NB);
}

static int refuse(int error) { errno = error; return -1; }

static int open_device(void) {
    if (mode_is("gone")) return refuse(ENODEV);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec thirty = {{0, 33333333}, {0, 33333333}};
    timerfd_settime(fd, 0, &thirty, NULL);
    device = fd;
    buffers = queue_length = 0;
    width = 640, height = 480, format = V4L2_PIX_FMT_YUYV;
    return fd;
}

static int opened(const char *name, const char *path, int flags, va_list more) {
    if (!strcmp(path, DEVICE)) return open_device();
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
    return flags & (O_CREAT | O_TMPFILE) ? real(path, flags, va_arg(more, int)) : real(path, flags);
}

int open(const char *path, int flags, ...) {
    va_list more; va_start(more, flags);
    int fd = opened("open", path, flags, more);
    va_end(more);
    return fd;
}

int open64(const char *path, int flags, ...) {
    va_list more; va_start(more, flags);
    int fd = opened("open64", path, flags, more);
    va_end(more);
    return fd;
}

static void *mapped(const char *name, void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, name);
    if (fd < 0 || fd != device) return real(at, length, protection, flags, fd, offset);
    void *place = real(at, length, protection | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); /* the driver writes */
    if (offset / ROOM < BUFFERS) memory[offset / ROOM] = place;
    return place;
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return mapped("mmap", at, length, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {
    return mapped("mmap64", at, length, protection, flags, fd, offset);
}

static uint32_t picture_size(void) {
    return format == V4L2_PIX_FMT_NV12 ? width * height * 3 / 2 : width * height * 2;
}

static uint32_t draw(unsigned char *to) {
    if (format == V4L2_PIX_FMT_MJPEG) {
        FILE *file = fopen(getenv("V4L2_JPEG"), "rb");
        uint32_t size = file ? fread(to, 1, ROOM, file) : 0;
        if (file) fclose(file);
        return size;
    }
    int step = format == V4L2_PIX_FMT_NV12 ? 1 : 2;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++) {
            uint32_t block = x / (width / 32);
            int luma = y < 16 ? (frame >> (31 - block) & 1 ? 235 : 16) : 40 + (x + y + 3 * frame) % 160;
            to[(y * width + x) * step] = luma;
            if (step == 2) to[(y * width + x) * 2 + 1] = 128;
        }
    if (step == 1) memset(to + width * height, 128, width * height / 2);
    return picture_size();
}

static void describe(struct v4l2_pix_format *pix) {
    pix->width = width, pix->height = height, pix->pixelformat = format, pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = format == V4L2_PIX_FMT_YUYV ? width * 2 : width;
    pix->sizeimage = format == V4L2_PIX_FMT_MJPEG ? ROOM : picture_size();
    pix->colorspace = V4L2_COLORSPACE_SRGB;
}

static int dequeue(struct v4l2_buffer *buffer) {
    uint64_t ticks;
    if (mode_is("gone")) return refuse(ENODEV);
    if (mode_is("silent")) {
        struct itimerspec never = {{0, 0}, {0, 0}};
        timerfd_settime(device, 0, &never, NULL);
        ticks = read(device, &ticks, sizeof ticks);
        return refuse(EAGAIN);
    }
    if (!queue_length || read(device, &ticks, sizeof ticks) < 0) return refuse(EAGAIN);
    frame += ticks; /* a driver without a buffer drops frames */
    buffer->index = queued[0];
    memmove(queued, queued + 1, --queue_length * sizeof *queued);
    buffer->bytesused = draw(memory[buffer->index]), buffer->length = ROOM;
    buffer->sequence = frame;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    struct timespec now;
    clock_gettime(mode_is("realtime") ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
    int64_t microseconds = now.tv_sec * 1000000LL + now.tv_nsec / 1000 - (mode_is("late") ? 300000 : 20000);
    if (mode_is("unstamped")) microseconds = 0;
    buffer->timestamp.tv_sec = microseconds / 1000000, buffer->timestamp.tv_usec = microseconds % 1000000;
    return 0;
}

static int answer(unsigned long request, void *argument) {
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *is = argument;
        memset(is, 0, sizeof *is);
        strcpy((char *)is->driver, "emulator");
        is->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        is->capabilities = is->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUMINPUT: return ((struct v4l2_input *)argument)->index ? refuse(EINVAL) : 0;
    case VIDIOC_G_INPUT: *(int *)argument = 0; return 0;
    case VIDIOC_S_INPUT: return 0;
    case VIDIOC_G_FMT: describe(&((struct v4l2_format *)argument)->fmt.pix); return 0;
    case VIDIOC_TRY_FMT:
    case VIDIOC_S_FMT: {
        struct v4l2_pix_format *pix = &((struct v4l2_format *)argument)->fmt.pix;
        uint32_t known[] = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_MJPEG};
        if (mode_is("busy")) return refuse(EBUSY);
        if (!mode_is("fixed")) {
            for (int i = 0; i < 3; i++) format = pix->pixelformat == known[i] ? known[i] : format;
            width = pix->width <= 320 ? 320 : 640, height = pix->width <= 320 ? 240 : 480;
        }
        describe(pix);
        return 0;
    }
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *parm = argument;
        parm->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        parm->parm.capture.timeperframe = (struct v4l2_fract){1, 30};
        return 0;
    }
    case VIDIOC_QUERYCTRL: {
        struct v4l2_queryctrl *query = argument;
        if (query->id != V4L2_CID_EXPOSURE_ABSOLUTE && query->id != V4L2_CID_EXPOSURE_AUTO) return refuse(EINVAL);
        query->type = V4L2_CTRL_TYPE_INTEGER, query->flags = 0;
        query->minimum = 0, query->step = 1;
        query->maximum = query->id == V4L2_CID_EXPOSURE_AUTO ? 3 : 10000;
        return mode_is("fixed") ? refuse(EINVAL) : 0;
    }
    case VIDIOC_G_CTRL:
    case VIDIOC_S_CTRL: {
        struct v4l2_control *control = argument;
        int *known = control->id == V4L2_CID_EXPOSURE_ABSOLUTE ? &exposure
            : control->id == V4L2_CID_EXPOSURE_AUTO ? &manual : NULL;
        if (!known || mode_is("fixed")) return refuse(EINVAL);
        if (request == VIDIOC_S_CTRL) {
            *known = control->value;
            fprintf(stderr, "control %s %d\n", known == &exposure ? "exposure" : "auto", *known);
        } else control->value = *known;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wish = argument;
        if (mode_is("busy") || lock_or_not(wish->count ? LOCK_EX : LOCK_UN)) return refuse(EBUSY);
        if (wish->count > BUFFERS) wish->count = BUFFERS;
        buffers = wish->count, queue_length = 0;
        fprintf(stderr, "buffers %d\n", buffers);
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = argument;
        if ((int)buffer->index >= buffers) return refuse(EINVAL);
        buffer->length = ROOM, buffer->m.offset = buffer->index * ROOM;
        return 0;
    }
    case VIDIOC_QBUF: queued[queue_length++ % BUFFERS] = ((struct v4l2_buffer *)argument)->index; return 0;
    case VIDIOC_DQBUF: return dequeue(argument);
    case VIDIOC_STREAMON: return mode_is("busy") ? refuse(EBUSY) : 0;
    case VIDIOC_STREAMOFF: queue_length = 0; return 0;
    }
    return refuse(EINVAL);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list more; va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    if (fd < 0 || fd != device) {
        int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
        return real(fd, request, argument);
    }
    return answer(request & 0xffffffff, argument);
}
