/* What is done with an ordinary frame before the engine's call, and after it, in one call each; see fast_path.py.

   A module for Python (its stable ABI, 3.11 or newer), because between two engine calls everything is cold: the engine's
   weights have driven all else out of the caches, and a call by ctypes costs ten to twenty microseconds there. What it does
   is done by the functions of _native.so, whose addresses `bind` gets. Where this module is missing, nothing is, but time. */

#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "preprocess.h"

#include <math.h>
#include <stdint.h>

struct beside;
struct job;
struct answer;

/* See beside.c, preprocess.c and frame_scores.c. */
static struct {
    void (*start)(struct beside *, struct job *, const uint8_t *, int64_t, uint8_t *, int32_t, int32_t, struct shared_resize *);
    int32_t (*finish)(struct beside *);
    int32_t (*is_done)(struct beside *);
    int32_t (*is_good)(const struct job *, double);
    int32_t (*attend)(struct beside *, int64_t);
    void (*share)(struct shared_resize *, struct preprocess *, const uint8_t *, int64_t, int32_t, int32_t);
    void (*resize)(struct shared_resize *);
    void (*preprocess)(struct preprocess *, const uint8_t *, int64_t, int32_t, int32_t);
    int32_t (*answer)(struct answer *, double);
} use;

/* A number that must lie within limits; an infinity is no limit. */
struct bound {
    double low, high;
    int32_t number; /* which of the answer's */
    int32_t unused;
};

enum { NUMBERS = 6 }; /* argmax, largest probability, entropy, margin, energy, shift */
enum { PROBABILITY = 1, MARGIN = 3 };

/* fast_path.py fills it in. */
struct fast_path {
    struct beside *beside;
    struct job *job;
    struct preprocess *plan;
    struct answer *answer;
    const double *found;  /* (NUMBERS,): what the answer's scores are */
    const char *pooled;   /* what the monitor reads; NULL without one */
    const struct bound *bounds;
    uint8_t *shown;       /* (samples,): some bytes of the frame, as it was handed over */
    const int64_t *places; /* (samples,): which */
    int64_t pooled_bytes;
    int64_t samples;
    int64_t rows, columns; /* of the frame */
    int64_t looked_bytes;  /* from one row that the camera check looks at to the next */
    int64_t region;        /* byte at which the region that the network is shown begins */
    double still;          /* see framegate_beside_good */
    int32_t width, height; /* of the region */
    int32_t bounded;       /* how many bounds; negative: they are not known here */
    int32_t unused;
    const uint8_t *pixels; /* of the frame that was begun */
    struct shared_resize resize;
};

enum { UNCHANGED = 1, ANSWERED = 2, FINITE = 4, GOOD = 8, WITHIN = 16 };
enum { CHANNELS = 3 };

enum { NONE = -1 };

/* Of the numbers that are not finite or not within their limits the first one's bound; NONE if there is none. Largest
   probability and margin are compared as one minus what they are, like every score: higher is less trustworthy. */
static int32_t beyond(const struct fast_path *path) {
    for (int32_t k = 0; k < path->bounded; ++k) {
        const struct bound *bound = path->bounds + k;
        const double found = path->found[bound->number];
        const double value = bound->number == PROBABILITY || bound->number == MARGIN ? 1.0 - found : found;
        if (!(isfinite(value) && value >= bound->low && value <= bound->high)) return k;
    }
    return NONE;
}

static int is_unchanged(const struct fast_path *path) {
    if (!path->pixels) return 0;
    uint8_t other = 0;
    for (int64_t k = 0; k < path->samples; ++k) other |= path->shown[k] ^ path->pixels[path->places[k]];
    return !other;
}

/* Pixels of a frame like the path's: (rows, columns, 3) uint8 without gaps; NULL, and no error, of any other object. */
static const uint8_t *pixels_of(PyObject *image, const struct fast_path *path) {
    Py_buffer view;
    if (PyObject_GetBuffer(image, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) {
        PyErr_Clear();
        return NULL;
    }
    const int known = view.ndim == 3 && view.itemsize == 1 && view.format && view.format[0] == 'B' && !view.format[1] &&
                      view.shape[0] == path->rows && view.shape[1] == path->columns && view.shape[2] == CHANNELS;
    const uint8_t *pixels = known ? view.buf : NULL;
    PyBuffer_Release(&view); /* whoever calls holds the image until the answer was looked at */
    return pixels;
}

/* Whether a function got as many arguments as it reads. */
static int has(Py_ssize_t count, Py_ssize_t wanted) {
    if (count != wanted) PyErr_SetString(PyExc_TypeError, "another number of arguments was expected");
    return count == wanted;
}

static PyObject *fits(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (!has(count, 2)) return NULL;
    struct fast_path *path = PyLong_AsVoidPtr(arguments[0]);
    if (!path) return NULL;
    path->pixels = pixels_of(arguments[1], path);
    return PyBool_FromLong(path->pixels != NULL);
}

static PyObject *begin(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (!has(count, 4)) return NULL;
    struct fast_path *path = PyLong_AsVoidPtr(arguments[0]);
    uint8_t *grey = PyLong_AsVoidPtr(arguments[1]);
    const long current = PyLong_AsLong(arguments[2]), previous = PyLong_AsLong(arguments[3]);
    if (!path || !grey || PyErr_Occurred()) return NULL;
    const uint8_t *pixels = path->pixels;
    if (!pixels) {
        PyErr_SetString(PyExc_ValueError, "no frame that fits was asked for");
        return NULL;
    }
    PyThreadState *state = PyEval_SaveThread();
    /* First, so that a later change of the frame is seen whoever has read it by then. */
    for (int64_t k = 0; k < path->samples; ++k) path->shown[k] = pixels[path->places[k]];
    use.share(&path->resize, path->plan, pixels + path->region, CHANNELS * path->columns, path->width, path->height);
    use.start(path->beside, path->job, pixels, path->looked_bytes, grey, (int32_t)current, (int32_t)previous, &path->resize);
    use.resize(&path->resize);
    PyEval_RestoreThread(state);
    Py_RETURN_NONE;
}

/* What `end` gives; a tuple with names. Its documentation is in fast_path.py. */
static PyStructSequence_Field looked_fields[] = {
    {"said", NULL},   {"argmax", NULL}, {"max_probability", NULL}, {"entropy", NULL}, {"margin", NULL},
    {"energy", NULL}, {"shift", NULL},  {"pooled", NULL},          {"beyond", NULL},
    {NULL, NULL},
};
static PyStructSequence_Desc looked_description = {"framegate.runtime.native._fast_path.Looked", NULL, looked_fields, NUMBERS + 3};
static PyTypeObject *looked; /* made once, and never freed */

static PyObject *answer_of(const struct fast_path *path, int32_t said, int32_t first_beyond) {
    PyObject *found = PyStructSequence_New(looked);
    if (!found) return NULL;
    PyStructSequence_SetItem(found, 0, PyLong_FromLong(said));
    PyStructSequence_SetItem(found, 1, PyLong_FromLong(said & FINITE ? (long)path->found[0] : -1));
    for (Py_ssize_t k = 1; k < NUMBERS; ++k) PyStructSequence_SetItem(found, k + 1, PyFloat_FromDouble(path->found[k]));
    PyStructSequence_SetItem(found, NUMBERS + 1,
                             PyBytes_FromStringAndSize(path->pooled, path->pooled ? path->pooled_bytes : 0));
    PyStructSequence_SetItem(found, NUMBERS + 2, PyLong_FromLong(first_beyond));
    for (Py_ssize_t k = 0; k < NUMBERS + 3; ++k)
        if (!PyStructSequence_GetItem(found, k)) { /* no memory */
            Py_DecRef(found);
            return NULL;
        }
    return found;
}

static PyObject *end(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (!has(count, 2)) return NULL;
    struct fast_path *path = PyLong_AsVoidPtr(arguments[0]);
    const double temperature = PyFloat_AsDouble(arguments[1]);
    if (!path || PyErr_Occurred()) return NULL;
    const int32_t answered = use.answer(path->answer, temperature);
    if (use.is_done(path->beside)) {
        use.finish(path->beside);
    } else {
        PyThreadState *state = PyEval_SaveThread();
        use.finish(path->beside);
        PyEval_RestoreThread(state);
    }
    const int compared = answered > 0 && path->bounded >= 0;
    const int32_t first_beyond = compared ? beyond(path) : NONE;
    return answer_of(path,
                     (is_unchanged(path) ? UNCHANGED : 0) | (answered < 0 ? 0 : ANSWERED) | (answered > 0 ? FINITE : 0) |
                         (use.is_good(path->job, path->still) ? GOOD : 0) |
                         (compared && first_beyond == NONE ? WITHIN : 0),
                     first_beyond);
}

static PyObject *unchanged(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (!has(count, 1)) return NULL;
    const struct fast_path *path = PyLong_AsVoidPtr(arguments[0]);
    return path ? PyBool_FromLong(is_unchanged(path)) : NULL;
}

/* What a crop's rows may measure in bytes, so that offsets within them fit. */
enum { MOST = INT32_MAX / 8 };

static PyObject *resize(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (!has(count, 2)) return NULL;
    struct preprocess *plan = PyLong_AsVoidPtr(arguments[0]);
    if (!plan) return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(arguments[1], &view, PyBUF_STRIDED_RO | PyBUF_FORMAT)) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    const int known = view.ndim == 3 && view.itemsize == 1 && view.format && view.format[0] == 'B' && !view.format[1] &&
                      view.shape[0] > 0 && view.shape[0] <= MOST && view.shape[1] > 0 && view.shape[1] <= MOST / CHANNELS &&
                      view.shape[2] == CHANNELS && view.strides[1] == CHANNELS && view.strides[2] == 1;
    if (known) {
        PyThreadState *state = PyEval_SaveThread();
        use.preprocess(plan, view.buf, view.strides[0], (int32_t)view.shape[1], (int32_t)view.shape[0]);
        PyEval_RestoreThread(state);
    }
    PyBuffer_Release(&view);
    return PyBool_FromLong(known);
}

static PyObject *attend(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (!has(count, 2)) return NULL;
    struct beside *beside = PyLong_AsVoidPtr(arguments[0]);
    const long long most_ns = PyLong_AsLongLong(arguments[1]);
    if (!beside || PyErr_Occurred()) return NULL;
    PyThreadState *state = PyEval_SaveThread();
    const int32_t was_there = use.attend(beside, most_ns);
    PyEval_RestoreThread(state);
    return PyBool_FromLong(was_there);
}

/* The version of the compiled code that is expected, then the addresses of what is used, in the order of the fields. */
static PyObject *bind(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    void **to = (void **)&use;
    if (count != 1 + (Py_ssize_t)(sizeof use / sizeof *to)) {
        PyErr_SetString(PyExc_TypeError, "another number of functions was expected");
        return NULL;
    }
    if (PyLong_AsLong(arguments[0]) != VERSION) { /* an old file: its structures may be others */
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "compiled from another version");
        return NULL;
    }
    for (Py_ssize_t k = 0; k < count - 1; ++k)
        if (!(to[k] = PyLong_AsVoidPtr(arguments[k + 1]))) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a function has no address");
            return NULL;
        }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bind", (PyCFunction)(void (*)(void))bind, METH_FASTCALL, "bind(version, *addresses): of the functions that do the work."},
    {"fits", (PyCFunction)(void (*)(void))fits, METH_FASTCALL, "fits(path, image): whether it is like the path's frames."},
    {"begin", (PyCFunction)(void (*)(void))begin, METH_FASTCALL, "begin(path, grey, current, previous): of what fits."},
    {"end", (PyCFunction)(void (*)(void))end, METH_FASTCALL, "end(path, temperature): what was found."},
    {"unchanged", (PyCFunction)(void (*)(void))unchanged, METH_FASTCALL, "unchanged(path): the frame is what it was."},
    {"resize", (PyCFunction)(void (*)(void))resize, METH_FASTCALL, "resize(plan, crop): False, and nothing done, if it is none."},
    {"attend", (PyCFunction)(void (*)(void))attend, METH_FASTCALL, "attend(beside, most_ns): look for a frame to count."},
    {NULL, NULL, 0, NULL},
};

static int make_types(PyObject *module) {
    (void)module;
    if (!looked) looked = PyStructSequence_NewType(&looked_description);
    return looked ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, make_types}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_fast_path", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast_path(void) { return PyModuleDef_Init(&definition); }
