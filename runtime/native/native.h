/* What the compiled files of the runtime share. Plain loops for the compiler to vectorise; nothing of Python is used. */

#ifndef FRAMEGATE_NATIVE_H
#define FRAMEGATE_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* x86: copies for processors with AVX-512 (from GCC 12), with AVX2, and for the others. Elsewhere the baseline has what is
   needed. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define FAST __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define FAST __attribute__((target_clones("avx2", "default")))
#endif
#else
#define FAST
#endif

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)0)
#endif

#if defined(_MSC_VER)
#define EXPORT __declspec(dllexport)
#define restrict __restrict
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { VERSION = 9 }; /* of the functions as a whole; __init__.py asks for it */

#endif
