// The few hardware operations the kernels use, each with its PTX body and a host body that follows the PTX ISA's tables.
//
// A half2 word holds two fp16 numbers, the lower-indexed one in the low bits. Fragments of m16n8k16 (PTX ISA, "Matrix
// Fragments for mma.m16n8k16"), with g = lane / 4 and q = lane % 4:
//   A: a[0] = (g, 2q..2q+1), a[1] = (g + 8, 2q..), a[2] = (g, 2q + 8..), a[3] = (g + 8, 2q + 8..)
//   B: b0 = (2q..2q+1, g), b1 = (2q + 8.., g);   C: c[0..1] = (g, 2q..2q+1), c[2..3] = (g + 8, 2q..)
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "shim.cuh"

namespace dnasm {

struct alignas(16) Quad {
  uint32_t w[4];
};
struct alignas(8) Complex {
  float re, im;
};

DNASM_DEVICE uint32_t float_bits(float x) {
#if defined(__CUDACC__)
  return __float_as_uint(x);
#else
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
#endif
}
DNASM_DEVICE float bits_float(uint32_t u) {
#if defined(__CUDACC__)
  return __uint_as_float(u);
#else
  float x;
  memcpy(&x, &u, 4);
  return x;
#endif
}

#if defined(__CUDACC__)

DNASM_DEVICE uint32_t pack_half2(float low, float high) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
DNASM_DEVICE float half_to_float(uint16_t h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}
DNASM_DEVICE uint32_t pack_bfloat2(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
DNASM_DEVICE uint32_t mul_half2(uint32_t a, uint32_t b) {
  uint32_t r;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DNASM_DEVICE uint32_t fma_half2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}
// The low halves of two words side by side, and the high ones
DNASM_DEVICE uint32_t low_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
DNASM_DEVICE uint32_t high_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }
DNASM_DEVICE uint32_t neg_half2(uint32_t a) {
  uint32_t r;
  asm("neg.f16x2 %0, %1;" : "=r"(r) : "r"(a));
  return r;
}

// c += A B
DNASM_DEVICE void mma_16816(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// c += A B for A of 16 x 8: a[0] = (g, 2q..), a[1] = (g + 8, 2q..), b = (2q.., g)
DNASM_DEVICE void mma_1688(float (&c)[4], const uint32_t (&a)[2], uint32_t b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}
// Four 8 x 8 matrices of halves; lane l names row l % 8 of matrix l / 8. Transposed: r[i] = elements (2q..2q+1, g) of it.
DNASM_DEVICE void ldmatrix_trans(uint32_t (&r)[4], const char* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));  // barriers stand on both sides of every use: they keep the order
}
// volatile: stays where it is written; hoisted out of a loop over sequences, tables would spill.
DNASM_DEVICE Quad load_table(const Quad* p) {
  Quad v;
  asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
               : "l"(p));
  return v;
}
// What is not met again soon: first to be evicted.
DNASM_DEVICE uint32_t load_once(const uint32_t* p) { return __ldcs(p); }
DNASM_DEVICE void store_once(uint32_t* p, uint32_t v) { __stcs(p, v); }
// Brings the line at p into the L2 cache.
DNASM_DEVICE void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
DNASM_DEVICE uint32_t warp_max(uint32_t x) { return __reduce_max_sync(0xffffffffu, x); }
DNASM_DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
// (cos, sin) of pi x
DNASM_DEVICE Complex cos_sin_pi(float x) {
  Complex c;
  sincospif(x, &c.im, &c.re);
  return c;
}

#else  // the CPU

inline uint16_t float_to_half(float x) {
  const _Float16 h = static_cast<_Float16>(x);
  uint16_t u;
  memcpy(&u, &h, 2);
  return u;
}
inline float half_to_float(uint16_t u) {
  _Float16 h;
  memcpy(&h, &u, 2);
  return static_cast<float>(h);
}
inline uint32_t pack_half2(float low, float high) {
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
}
inline uint32_t float_to_bfloat(float x) {
  const uint32_t u = float_bits(x);
  return (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
inline uint32_t pack_bfloat2(float low, float high) { return float_to_bfloat(low) | float_to_bfloat(high) << 16; }
inline float low_half(uint32_t w) { return half_to_float(static_cast<uint16_t>(w)); }
inline float high_half(uint32_t w) { return half_to_float(static_cast<uint16_t>(w >> 16)); }
inline uint32_t mul_half2(uint32_t a, uint32_t b) {
  return pack_half2(low_half(a) * low_half(b), high_half(a) * high_half(b));
}
inline uint32_t fma_half2(uint32_t a, uint32_t b, uint32_t c) {
  return pack_half2(fmaf(low_half(a), low_half(b), low_half(c)), fmaf(high_half(a), high_half(b), high_half(c)));
}
inline uint32_t low_halves(uint32_t a, uint32_t b) { return (a & 0xffffu) | b << 16; }
inline uint32_t high_halves(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000u); }
inline uint32_t neg_half2(uint32_t a) { return a ^ 0x80008000u; }

struct MmaOperands {
  float* c;
  const uint32_t *a, *b;
};

// The host's matrix product over a whole warp's fragments; kWords = 4 for k = 16, 2 for k = 8.
template <int kWords>
void host_mma(MmaOperands** lanes) {
  constexpr int k = 4 * kWords;
  float a[16][k], b[8][k], c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, q = lane % 4;
    const MmaOperands& o = *lanes[lane];
    for (int w = 0; w < kWords; ++w)
      for (int h = 0; h < 2; ++h) {
        const uint16_t half = static_cast<uint16_t>(o.a[w] >> 16 * h);
        a[g + 8 * (w & 1)][2 * q + 8 * (w >> 1) + h] = half_to_float(half);
      }
    for (int w = 0; w < kWords / 2; ++w)
      for (int h = 0; h < 2; ++h) b[g][2 * q + 8 * w + h] = half_to_float(static_cast<uint16_t>(o.b[w] >> 16 * h));
  }
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      float sum = 0;
      for (int n = 0; n < k; ++n) sum += a[i][n] * b[j][n];
      c[i][j] = sum;
    }
  for (int lane = 0; lane < 32; ++lane)
    for (int w = 0; w < 4; ++w) lanes[lane]->c[w] += c[lane / 4 + 8 * (w >> 1)][2 * (lane % 4) + (w & 1)];
}
inline void mma_16816(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  MmaOperands mine{c, a, b};
  host::warp_collective("mma_16816", mine, host_mma<4>);
}
inline void mma_1688(float (&c)[4], const uint32_t (&a)[2], uint32_t b) {
  MmaOperands mine{c, a, &b};
  host::warp_collective("mma_1688", mine, host_mma<2>);
}

struct MatrixRow {
  uint16_t halves[8];
  uint32_t* words;
};
inline void ldmatrix_trans(uint32_t (&r)[4], const char* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) host::fail("ldmatrix: a row that is not 16-byte aligned");
  MatrixRow mine;
  memcpy(mine.halves, row, 16);  // this lane's own access: the race checker sees it
  mine.words = r;
  host::warp_collective("ldmatrix_trans", mine, [](MatrixRow** lanes) {
    for (int lane = 0; lane < 32; ++lane)
      for (int m = 0; m < 4; ++m) {
        const MatrixRow *even = lanes[8 * m + 2 * (lane % 4)], *odd = lanes[8 * m + 2 * (lane % 4) + 1];
        lanes[lane]->words[m] = even->halves[lane / 4] | static_cast<uint32_t>(odd->halves[lane / 4]) << 16;
      }
  });
}
inline Quad load_table(const Quad* p) { return *p; }
inline uint32_t load_once(const uint32_t* p) { return *p; }
inline void store_once(uint32_t* p, uint32_t v) { *p = v; }
inline void prefetch(const void*) {}

inline uint32_t warp_max(uint32_t x) {
  host::warp_collective("warp_max", x, [](uint32_t** lanes) {
    uint32_t most = 0;
    for (int lane = 0; lane < 32; ++lane) most = *lanes[lane] > most ? *lanes[lane] : most;
    for (int lane = 0; lane < 32; ++lane) *lanes[lane] = most;
  });
  return x;
}
inline float shuffle_xor(float x, int mask) {
  struct Exchange {
    float in, out;
    int mask;
  } mine{x, 0, mask};
  host::warp_collective("shuffle_xor", mine, [](Exchange** lanes) {
    for (int lane = 0; lane < 32; ++lane) lanes[lane]->out = lanes[lane ^ lanes[lane]->mask]->in;
  });
  return mine.out;
}
inline Complex cos_sin_pi(float x) {
  const double angle = 3.14159265358979323846 * x;
  return {static_cast<float>(cos(angle)), static_cast<float>(sin(angle))};
}

#endif

}  // namespace dnasm
