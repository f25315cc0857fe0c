// uint32_t and its relatives, for structures that are the same on the host and on the device.
#pragma once

#ifndef __CUDACC_RTC__
#include <stdint.h>
#else  // NVRTC brings no C library
typedef signed int int32_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#endif
