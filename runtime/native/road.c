/* What is done with an ordinary frame before the engine's call, and after it, in one call each; see road.py.

   A module for Python (its stable ABI, 3.11 or newer), because between two engine calls everything is cold: the engine's
   weights have driven all else out of the caches, and a call by ctypes costs ten to twenty microseconds there. What it does
   is done by the functions of _native.so, whose addresses `bind` gets. Where this module is missing, nothing is, but time. */

#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <stdint.h>

struct beside;
struct job;
struct preprocess;
struct answer;

/* See beside.c, preprocess.c and frame_scores.c. */
static struct {
    void (*start)(struct beside *, struct job *, const uint8_t *, int64_t, uint8_t *, int32_t, int32_t);
    int32_t (*finish)(struct beside *);
    int32_t (*is_done)(struct beside *);
    int32_t (*is_good)(const struct job *, double);
    int32_t (*attend)(struct beside *, int64_t);
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

/* road.py fills it in. */
struct road {
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
};

enum { UNCHANGED = 1, ANSWERED = 2, FINITE = 4, GOOD = 8, WITHIN = 16 };
enum { CHANNELS = 3 };

/* Whether every number is finite and within its limits. Largest probability and margin are compared as one minus what they
   are, like every score: higher is less trustworthy. */
static int within(const struct road *road) {
    if (road->bounded < 0) return 0;
    for (int32_t k = 0; k < road->bounded; ++k) {
        const struct bound *bound = road->bounds + k;
        const double found = road->found[bound->number];
        const double value = bound->number == PROBABILITY || bound->number == MARGIN ? 1.0 - found : found;
        if (!(isfinite(value) && value >= bound->low && value <= bound->high)) return 0;
    }
    return 1;
}

static int is_unchanged(const struct road *road) {
    uint8_t other = 0;
    for (int64_t k = 0; k < road->samples; ++k) other |= road->shown[k] ^ road->pixels[road->places[k]];
    return !other;
}

/* Pixels of a frame like the road's: (rows, columns, 3) uint8 without gaps; NULL, and no error, of any other object. */
static const uint8_t *pixels_of(PyObject *image, const struct road *road) {
    Py_buffer view;
    if (PyObject_GetBuffer(image, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) {
        PyErr_Clear();
        return NULL;
    }
    const int known = view.ndim == 3 && view.itemsize == 1 && view.format && view.format[0] == 'B' && !view.format[1] &&
                      view.shape[0] == road->rows && view.shape[1] == road->columns && view.shape[2] == CHANNELS;
    const uint8_t *pixels = known ? view.buf : NULL;
    PyBuffer_Release(&view); /* whoever calls holds the image until the answer was looked at */
    return pixels;
}

static PyObject *fits(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module, (void)count;
    struct road *road = PyLong_AsVoidPtr(arguments[0]);
    if (!road) return NULL;
    road->pixels = pixels_of(arguments[1], road);
    return PyBool_FromLong(road->pixels != NULL);
}

static PyObject *begin(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module, (void)count;
    struct road *road = PyLong_AsVoidPtr(arguments[0]);
    uint8_t *grey = PyLong_AsVoidPtr(arguments[1]);
    const long current = PyLong_AsLong(arguments[2]), previous = PyLong_AsLong(arguments[3]);
    if (!road || !grey || PyErr_Occurred()) return NULL;
    const uint8_t *pixels = road->pixels;
    PyThreadState *state = PyEval_SaveThread();
    /* First, so that a later change of the frame is seen whoever has read it by then. */
    for (int64_t k = 0; k < road->samples; ++k) road->shown[k] = pixels[road->places[k]];
    use.start(road->beside, road->job, pixels, road->looked_bytes, grey, (int32_t)current, (int32_t)previous);
    use.preprocess(road->plan, pixels + road->region, CHANNELS * road->columns, road->width, road->height);
    PyEval_RestoreThread(state);
    Py_RETURN_NONE;
}

/* What `end` gives; a tuple with names. Its documentation is in road.py. */
static PyStructSequence_Field looked_fields[] = {
    {"said", NULL},   {"argmax", NULL}, {"max_probability", NULL}, {"entropy", NULL}, {"margin", NULL},
    {"energy", NULL}, {"shift", NULL},  {"pooled", NULL},          {NULL, NULL},
};
static PyStructSequence_Desc looked_description = {"framegate.runtime.native._road.Looked", NULL, looked_fields, NUMBERS + 2};
static PyTypeObject *looked; /* made once, and never freed */

static PyObject *answer_of(const struct road *road, int32_t said) {
    PyObject *found = PyStructSequence_New(looked);
    if (!found) return NULL;
    PyStructSequence_SetItem(found, 0, PyLong_FromLong(said));
    PyStructSequence_SetItem(found, 1, PyLong_FromLong(said & FINITE ? (long)road->found[0] : -1));
    for (Py_ssize_t k = 1; k < NUMBERS; ++k) PyStructSequence_SetItem(found, k + 1, PyFloat_FromDouble(road->found[k]));
    PyStructSequence_SetItem(found, NUMBERS + 1,
                             PyBytes_FromStringAndSize(road->pooled, road->pooled ? road->pooled_bytes : 0));
    for (Py_ssize_t k = 0; k < NUMBERS + 2; ++k)
        if (!PyStructSequence_GetItem(found, k)) { /* no memory */
            Py_DecRef(found);
            return NULL;
        }
    return found;
}

static PyObject *end(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module, (void)count;
    struct road *road = PyLong_AsVoidPtr(arguments[0]);
    const double temperature = PyFloat_AsDouble(arguments[1]);
    if (!road || PyErr_Occurred()) return NULL;
    const int32_t answered = use.answer(road->answer, temperature);
    if (use.is_done(road->beside)) {
        use.finish(road->beside);
    } else {
        PyThreadState *state = PyEval_SaveThread();
        use.finish(road->beside);
        PyEval_RestoreThread(state);
    }
    return answer_of(road, (is_unchanged(road) ? UNCHANGED : 0) | (answered < 0 ? 0 : ANSWERED) | (answered > 0 ? FINITE : 0) |
                               (use.is_good(road->job, road->still) ? GOOD : 0) |
                               (answered > 0 && within(road) ? WITHIN : 0));
}

static PyObject *unchanged(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module, (void)count;
    const struct road *road = PyLong_AsVoidPtr(arguments[0]);
    return road ? PyBool_FromLong(is_unchanged(road)) : NULL;
}

static PyObject *attend(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module, (void)count;
    struct beside *beside = PyLong_AsVoidPtr(arguments[0]);
    const long long most_ns = PyLong_AsLongLong(arguments[1]);
    if (!beside || PyErr_Occurred()) return NULL;
    PyThreadState *state = PyEval_SaveThread();
    const int32_t was_there = use.attend(beside, most_ns);
    PyEval_RestoreThread(state);
    return PyBool_FromLong(was_there);
}

/* The addresses of what is used, in the order of the fields. */
static PyObject *bind(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    void **to = (void **)&use;
    if (count != (Py_ssize_t)(sizeof use / sizeof *to)) {
        PyErr_SetString(PyExc_TypeError, "another number of functions was expected");
        return NULL;
    }
    for (Py_ssize_t k = 0; k < count; ++k)
        if (!(to[k] = PyLong_AsVoidPtr(arguments[k]))) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a function has no address");
            return NULL;
        }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bind", (PyCFunction)(void (*)(void))bind, METH_FASTCALL, "bind(*addresses): of the functions that do the work."},
    {"fits", (PyCFunction)(void (*)(void))fits, METH_FASTCALL, "fits(road, image): whether it is like the road's frames."},
    {"begin", (PyCFunction)(void (*)(void))begin, METH_FASTCALL, "begin(road, grey, current, previous): of what fits."},
    {"end", (PyCFunction)(void (*)(void))end, METH_FASTCALL, "end(road, temperature): what was found."},
    {"unchanged", (PyCFunction)(void (*)(void))unchanged, METH_FASTCALL, "unchanged(road): the frame is what it was."},
    {"attend", (PyCFunction)(void (*)(void))attend, METH_FASTCALL, "attend(beside, most_ns): look for a frame to count."},
    {NULL, NULL, 0, NULL},
};

static int make_types(PyObject *module) {
    (void)module;
    if (!looked) looked = PyStructSequence_NewType(&looked_description);
    return looked ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, make_types}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_road", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__road(void) { return PyModuleDef_Init(&definition); }
