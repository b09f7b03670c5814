// What a kernel written for NVRTC needs to compile as C++ for the host; g++ includes it in front of every kernel.
#pragma once
#include <immintrin.h>
#include <cuda_runtime_api.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#define CUDA_ON_HOST 1
#define __CUDA_ARCH__ 900
#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __noinline__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static  // blocks run one after the other
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define IN static inline

static uint3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;
static char hostcuda_shared[233472] __attribute__((aligned(64)));  // what a launch may ask for

// ---- threads that wait for each other (hostcuda.cpp)

extern "C" {
void hostcuda_sync_block();
void hostcuda_sync_warp(unsigned mask);
unsigned hostcuda_lane();
void* hostcuda_exchanged(unsigned lane);
bool hostcuda_block(void (*body)(), const unsigned* size, unsigned* index);
}
IN void __syncthreads() { hostcuda_sync_block(); }
IN void __syncwarp(unsigned mask = ~0u) { hostcuda_sync_warp(mask); }
IN void __threadfence() {}
template <class T> IN T host_from_lane(unsigned mask, T value, unsigned lane) {
  memcpy(hostcuda_exchanged(hostcuda_lane()), &value, sizeof value);
  hostcuda_sync_warp(mask);
  memcpy((void*)&value, hostcuda_exchanged(lane), sizeof value);
  hostcuda_sync_warp(mask);
  return value;
}
#define SHUFFLE(NAME, N, SOURCE)                                           \
  template <class T> IN T NAME(unsigned mask, T v, N n, unsigned width = 32) { \
    unsigned lane = hostcuda_lane(), in = lane % width, first = lane - in;    \
    return host_from_lane(mask, v, SOURCE);                                   \
  }
SHUFFLE(__shfl_sync, int, first + n % width)
SHUFFLE(__shfl_xor_sync, int, (in ^ n) < width ? first + (in ^ n) : lane)
SHUFFLE(__shfl_up_sync, unsigned, in < n ? lane : lane - n)
SHUFFLE(__shfl_down_sync, unsigned, in + n < width ? lane + n : lane)

// ---- functions of the device

template <class To, class From> IN To host_bits(From x) {
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}
IN int __popc(unsigned x) { return __builtin_popcount(x); }
IN int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
IN int __clz(int x) { return x ? __builtin_clz(x) : 32; }
IN int __ffs(int x) { return __builtin_ffs(x); }
IN float __half2float(unsigned short h) { return _cvtsh_ss(h); }
IN unsigned short __float2half_rn(float f) { return _cvtss_sh(f, 0); }
IN float __int_as_float(int x) { return host_bits<float>(x); }
IN int __float_as_int(float x) { return host_bits<int>(x); }
IN float __uint_as_float(unsigned x) { return host_bits<float>(x); }
IN unsigned __float_as_uint(float x) { return host_bits<unsigned>(x); }
IN double __longlong_as_double(long long x) { return host_bits<double>(x); }
IN long long __double_as_longlong(double x) { return host_bits<long long>(x); }
#define __half_as_ushort(h) host_bits<unsigned short>(h)
#define __ushort_as_half(x) half(__half_raw{(unsigned short)(x)})
IN float rsqrt(float x) { return 1 / sqrtf(x); }
IN double rsqrt(double x) { return 1 / sqrt(x); }
IN float rsqrtf(float x) { return rsqrt(x); }
IN float exp(float x) { return expf(x); }
using std::isfinite, std::isinf, std::isnan, std::signbit;
template <class A, class B> IN std::common_type_t<A, B> max(A a, B b) { return std::max<std::common_type_t<A, B>>(a, b); }
template <class A, class B> IN std::common_type_t<A, B> min(A a, B b) { return std::min<std::common_type_t<A, B>>(a, b); }

#define ATOMIC(NAME, TYPES, NEW)                                   \
  template <class T, class V> IN auto NAME(T* p, V v) -> std::enable_if_t<TYPES<T>, T> { \
    T old = *p;                                                    \
    *p = NEW;                                                      \
    return old;                                                    \
  }
ATOMIC(atomicAdd, std::is_arithmetic_v, T(old + T(v)))
ATOMIC(atomicExch, std::is_arithmetic_v, T(v))
ATOMIC(atomicMax, std::is_integral_v, old < T(v) ? T(v) : old)
ATOMIC(atomicMin, std::is_integral_v, T(v) < old ? T(v) : old)
ATOMIC(atomicOr, std::is_integral_v, T(old | v))
ATOMIC(atomicAnd, std::is_integral_v, T(old & v))
ATOMIC(atomicXor, std::is_integral_v, T(old ^ v))
template <class T, class C, class V> IN auto atomicCAS(T* p, C expected, V v) -> std::enable_if_t<std::is_integral_v<T>, T> {
  T old = *p;
  if (old == T(expected)) *p = T(v);
  return old;
}

// ---- how cuLaunchKernel calls a kernel: NAME__run, with pointers to its arguments

static void** host_arguments;
template <class... A, size_t... I> IN void host_call(void (*kernel)(A...), std::index_sequence<I...>) {
  kernel(*(std::decay_t<A>*)host_arguments[I]...);
}
template <class... A> IN void host_call(void (*kernel)(A...)) { host_call(kernel, std::index_sequence_for<A...>{}); }

#define EACH(i, size) for (i.z = 0; i.z < size.z; i.z++) for (i.y = 0; i.y < size.y; i.y++) for (i.x = 0; i.x < size.x; i.x++)
#define HOST_KERNEL(NAME, WAITS)                                                                \
  extern "C" bool NAME##__run(void** arguments, const unsigned* grid, const unsigned* block) {    \
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};               \
    host_arguments = arguments;                                                                 \
    EACH(blockIdx, gridDim) {                                                                   \
      if (!WAITS) { EACH(threadIdx, blockDim) host_call(NAME); }                                   \
      else if (!hostcuda_block([] { host_call(NAME); }, block, &threadIdx.x)) return false;        \
    }                                                                                           \
    return true;                                                                                \
  }
