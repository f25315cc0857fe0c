/* A libcuda.so.1 without a GPU, for the tests of the CUDA layer.

   Device memory is host memory, streams run at once, and the one kernel it knows is
       scale(const float *x, float *y, float factor, int count)
   so what the CUDA layer passes can be checked by its effect: a wrongly packed argument gives a wrong number, and a
   captured call has no effect before its graph is launched. Kernels of framegate's own sources run as well, compiled for
   the host by emulate.py; and  colour_network(const float *image, float *logits, int pixels)  stands for an engine: each
   logit is 8 times the mean of a channel, blue first, as in the test bundle of tests/conftest.py.

   STUB_LOG      file that every call's name is appended to
   STUB_FAIL     name=code,name=code: those functions fail
   STUB_STICKY   if set, a failure with 700 stays until the primary context is gone, as on a GPU
   STUB_KERNELS  path:path of libraries that emulate.py made
   STUB_INTEGRATED  whether the GPU shares the host's memory, default 1
   STUB_VERSION  what cuDriverGetVersion says, default 13000
   STUB_DEVICES  how many GPUs there are, default 1 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long pointer;
typedef struct operation {
    int kind; /* 0 copy, 1 scale, 2 a kernel of a source, 3 the network */
    void *to;
    const void *from;
    size_t bytes;
    float factor;
    int count;
    int (*entry)(const unsigned *, const unsigned *, size_t, void **, unsigned long long);
    unsigned grid[3], block[3], shared;
    char parameter[512]; /* one behind the other, each at a multiple of 8 */
    int parameters;
    size_t offsets[16];
} operation;
typedef struct graph {
    int length;
    operation operations[64];
} graph;

static _Thread_local void *current, *stack[16]; /* a context is current in one thread */
static _Thread_local int depth;
static int retained;
static unsigned context_flags;
static graph *recording;
static char context_object[8], function_object[8], module_object[8], network_object[8];
static struct { void *entry; int parameters; size_t sizes[16], offsets[16]; } kernels[32];
static int known, stuck;

static int called(const char *name) {
    const char *path = getenv("STUB_LOG"), *fail = getenv("STUB_FAIL");
    if (path) {
        FILE *log = fopen(path, "a");
        fprintf(log, "%s\n", name);
        fclose(log);
    }
    for (; fail && *fail; fail = strchr(fail, ',') ? strchr(fail, ',') + 1 : "") {
        size_t length = strlen(name);
        if (!strncmp(fail, name, length) && fail[length] == '=') {
            int code = atoi(fail + length + 1);
            if (code == 700 && getenv("STUB_STICKY")) stuck = 700;
            return code;
        }
    }
    /* What only asks about the machine works after a fault, too. */
    if (!strncmp(name, "cuInit", 6) || !strncmp(name, "cuD", 3) || !strncmp(name, "cuCtxSet", 8)) return 0;
    return stuck;
}
#define BEGIN do { int code = called(__func__); if (code) return code; } while (0)
#define NEEDS_CONTEXT do { if (!current) return 201; } while (0)

static int number(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }

static void perform(const operation *op) {
    if (op->kind == 0) memmove(op->to, op->from, op->bytes);
    else if (op->kind == 2) {
        char copy[512];
        memcpy(copy, op->parameter, sizeof copy);
        void *each[16];
        for (int i = 0; i < op->parameters; i++) each[i] = copy + op->offsets[i];
        if (op->entry(op->grid, op->block, op->shared, each, 0)) abort();
    } else if (op->kind == 3) for (int c = 0; c < 3; c++) {
        double sum = 0;
        for (int i = 0; i < op->count; i++) sum += ((const float *)op->from)[(2 - c) * op->count + i];
        ((float *)op->to)[c] = (float)(8 * sum / op->count);
    } else for (int i = 0; i < op->count; i++) ((float *)op->to)[i] = op->factor * ((const float *)op->from)[i];
}
static int submit(operation op) {
    if (recording) recording->operations[recording->length++] = op;
    else perform(&op);
    return 0;
}

int cuGetErrorName(int code, const char **text) {
    *text = code == 0 ? "CUDA_SUCCESS" : code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 201 ? "CUDA_ERROR_INVALID_CONTEXT"
        : code == 500 ? "CUDA_ERROR_NOT_FOUND" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
        : code == 708 ? "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE" : code == 901 ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" : NULL;
    return *text ? 0 : 1;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == 0 ? "no error" : code == 2 ? "out of memory" : code == 201 ? "invalid device context"
        : code == 500 ? "named symbol not found" : code == 700 ? "an illegal memory access was encountered"
        : code == 708 ? "primary context active" : code == 901 ? "operation failed due to a previous error during capture" : NULL;
    return *text ? 0 : 1;
}
int cuInit(unsigned flags) { (void)flags; BEGIN; return number("STUB_DEVICES", 1) ? 0 : 100; }
int cuDriverGetVersion(int *version) { BEGIN; *version = number("STUB_VERSION", 13000); return 0; }
int cuDeviceGetCount(int *count) { BEGIN; *count = number("STUB_DEVICES", 1); return 0; }
int cuDeviceGet(int *device, int ordinal) { BEGIN; *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) { (void)device; BEGIN; snprintf(name, length, "stub"); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; BEGIN; *bytes = 1 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device; BEGIN;
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 16 ? 16 : attribute == 38 ? 4194304
        : attribute == 18 ? number("STUB_INTEGRATED", 1) : 0;
    return 0;
}
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) { (void)device; BEGIN; context_flags = flags; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; BEGIN; retained++; *context = context_object; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device; BEGIN;
    if (--retained == 0) stuck = 0; /* the context is gone, and its fault with it */
    return retained < 0 ? 201 : 0;
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    (void)device; BEGIN; *flags = context_flags; *active = retained > 0; return 0;
}
int cuCtxGetCurrent(void **context) { *context = current; return 0; }
int cuCtxSetCurrent(void *context) { BEGIN; current = context; return 0; }
int cuCtxPushCurrent_v2(void *context) { stack[depth++] = current; current = context; return 0; }
int cuCtxPopCurrent_v2(void **context) {
    if (!depth) return 201;
    if (context) *context = current;
    current = stack[--depth];
    return 0;
}
int cuCtxGetDevice(int *device) { NEEDS_CONTEXT; *device = 0; return 0; }

int cuMemAlloc_v2(pointer *out, size_t bytes) { BEGIN; NEEDS_CONTEXT; *out = (pointer)aligned_alloc(256, (bytes + 255) / 256 * 256); return 0; }
int cuMemFree_v2(pointer p) { BEGIN; NEEDS_CONTEXT; free((void *)p); return 0; }
int cuMemHostAlloc(void **out, size_t bytes, unsigned flags) { BEGIN; NEEDS_CONTEXT; 
    *out = flags == 2 ? aligned_alloc(4096, (bytes + 4095) / 4096 * 4096) : NULL;
    return *out ? 0 : 1;
}
int cuMemHostGetDevicePointer_v2(pointer *out, void *p, unsigned flags) { (void)flags; BEGIN; *out = (pointer)p; return 0; }
int cuMemFreeHost(void *p) { BEGIN; NEEDS_CONTEXT; free(p); return 0; }
int cuMemcpyHtoDAsync_v2(pointer to, const void *from, size_t bytes, void *stream) {
    (void)stream; BEGIN; NEEDS_CONTEXT; return submit((operation){.to = (void *)to, .from = from, .bytes = bytes});
}
int cuMemcpyDtoHAsync_v2(void *to, pointer from, size_t bytes, void *stream) {
    (void)stream; BEGIN; NEEDS_CONTEXT; return submit((operation){.to = to, .from = (void *)from, .bytes = bytes});
}
int cuMemcpyDtoDAsync_v2(pointer to, pointer from, size_t bytes, void *stream) {
    (void)stream; BEGIN; NEEDS_CONTEXT; return submit((operation){.to = (void *)to, .from = (void *)from, .bytes = bytes});
}
int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    BEGIN; NEEDS_CONTEXT;
    int *made = malloc(8); made[0] = flags; made[1] = priority; *stream = made;
    return flags == 1 && priority >= -5 && priority <= 0 ? 0 : 1;
}
int cuStreamDestroy_v2(void *stream) { BEGIN; free(stream); return 0; }
int cuStreamSynchronize(void *stream) { (void)stream; BEGIN; return 0; }
int cuEventCreate(void **event, unsigned flags) { (void)flags; BEGIN; NEEDS_CONTEXT; *event = malloc(1); return 0; }
int cuEventDestroy_v2(void *event) { BEGIN; free(event); return 0; }
int cuEventRecord(void *event, void *stream) { (void)event; (void)stream; BEGIN; NEEDS_CONTEXT; return 0; }
int cuEventSynchronize(void *event) { (void)event; BEGIN; return 0; }
int cuEventQuery(void *event) { (void)event; BEGIN; return 0; }
int cuEventElapsedTime(float *ms, void *start, void *end) { BEGIN; *ms = start == end ? 0.0f : 1.5f; return 0; }
int cuModuleLoadData(void **module, const void *image) { BEGIN; NEEDS_CONTEXT; *module = module_object; return memcmp(image, "IMAGE", 5) ? 200 : 0; }
int cuModuleUnload(void *module) { BEGIN; return module == module_object ? 0 : 1; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    BEGIN; *function = NULL;
    if (module != module_object) return 500;
    if (!strcmp(name, "scale")) *function = function_object;
    if (!strcmp(name, "colour_network")) *function = network_object;
    char libraries[1024] = "", symbol[160];
    snprintf(libraries, sizeof libraries, "%s", getenv("STUB_KERNELS") ? getenv("STUB_KERNELS") : "");
    for (char *path = strtok(libraries, ":"); path && !*function; path = strtok(NULL, ":")) {
        void *library = dlopen(path, RTLD_LAZY);
        snprintf(symbol, sizeof symbol, "emulate_%s", name);
        void *entry = library ? dlsym(library, symbol) : NULL;
        if (!entry || known == 32) continue;
        snprintf(symbol, sizeof symbol, "emulate_sizes_%s", name);
        size_t sizes[32];
        int count = ((int (*)(size_t *))dlsym(library, symbol))(sizes);
        size_t end = 0;
        for (int i = 0; i < count && count <= 16; i++) {
            kernels[known].sizes[i] = sizes[i];
            kernels[known].offsets[i] = end;
            end += (sizes[i] + 7) / 8 * 8;
        }
        if (count > 16 || end > 512) return 500;
        kernels[known].entry = entry;
        kernels[known].parameters = count;
        *function = &kernels[known++];
    }
    return *function ? 0 : 500;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    BEGIN; return function == function_object && attribute == 8 && value > 49152 ? 0 : 1;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    (void)stream; BEGIN; NEEDS_CONTEXT;
    if (function == network_object)
        return submit((operation){.kind = 3, .to = *(void **)parameters[1], .from = *(void **)parameters[0], .count = *(int *)parameters[2]});
    for (int i = 0; i < known; i++) if (function == &kernels[i]) {
        operation op = {.kind = 2, .entry = kernels[i].entry, .grid = {gx, gy, gz}, .block = {bx, by, bz}, .shared = shared};
        op.parameters = kernels[i].parameters;
        memcpy(op.offsets, kernels[i].offsets, sizeof op.offsets);
        for (int k = 0; k < op.parameters; k++) memcpy(op.parameter + op.offsets[k], parameters[k], kernels[i].sizes[k]);
        return submit(op);
    }
    if (function != function_object || gx * gy * gz * bx * by * bz == 0 || extra) return 1;
    return submit((operation){.kind = 1, .to = *(void **)parameters[1], .from = *(void **)parameters[0], .factor = *(float *)parameters[2], .count = *(int *)parameters[3]});
}
int cuStreamBeginCapture_v2(void *stream, int mode) { (void)stream; BEGIN; recording = calloc(1, sizeof(graph)); return mode == 1 ? 0 : 1; }
int cuStreamEndCapture(void *stream, void **out) { (void)stream; *out = recording; recording = NULL; BEGIN; return *out ? 0 : 901; }
int cuGraphInstantiateWithFlags(void **out, void *template, unsigned long long flags) {
    BEGIN; graph *copy = malloc(sizeof(graph)); *copy = *(graph *)template; *out = copy; return flags ? 1 : 0;
}
int cuGraphDestroy(void *template) { BEGIN; free(template); return 0; }
int cuGraphExecDestroy(void *executable) { BEGIN; free(executable); return 0; }
int cuGraphLaunch(void *executable, void *stream) {
    (void)stream; BEGIN; NEEDS_CONTEXT;
    for (int i = 0; i < ((graph *)executable)->length; i++) perform(&((graph *)executable)->operations[i]);
    return 0;
}
/* Called when an execution context of the stand-in for TensorRT goes. */
void stub_context_destroyed(void *capsule) { (void)capsule; called(__func__); }
/* cuda-bindings asks for its functions here, by names without version suffix. */
int cuGetProcAddress_v2(const char *name, void **out, int version, unsigned long long flags, int *status) {
    static const char *suffixes[] = {"_v2", "WithFlags", ""};
    char exported[128];
    (void)version; (void)flags;
    *out = NULL;
    for (int i = 0; i < 3 && !*out; i++) {
        snprintf(exported, sizeof exported, "%s%s", name, suffixes[i]);
        Dl_info self;
        dladdr((void *)cuGetProcAddress_v2, &self);
        void *library = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
        *out = dlsym(library, exported);
    }
    if (status) *status = *out ? 0 : 1;
    return *out ? 0 : 500;
}
