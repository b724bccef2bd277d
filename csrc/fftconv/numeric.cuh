// Numbers: tensor elements as pairs of floats, complex numbers as half2 words, powers of two.
#pragma once

#include "../host/hardware.cuh"
#include "launch.h"

namespace dnasm {

// A pair of neighbouring elements of a tensor, kept as it stands in memory until it is used.
template <int kDtype>
struct Element;

template <>
struct Element<kBfloat16> {
  using Scalar = uint16_t;
  using Pair = uint32_t;
  static DNASM_DEVICE Pair join(Scalar a, Scalar b) { return a | static_cast<uint32_t>(b) << 16; }
  static DNASM_DEVICE Scalar pick(Pair p, int i) { return static_cast<Scalar>(p >> 16 * i); }
  static DNASM_DEVICE float low(Pair p) { return bits_float(p << 16); }
  static DNASM_DEVICE float high(Pair p) { return bits_float(p & 0xffff0000u); }
  static DNASM_DEVICE Pair pack(float a, float b) { return pack_bfloat2(a, b); }
};

template <>
struct Element<kFloat16> {
  using Scalar = uint16_t;
  using Pair = uint32_t;
  static DNASM_DEVICE Pair join(Scalar a, Scalar b) { return a | static_cast<uint32_t>(b) << 16; }
  static DNASM_DEVICE Scalar pick(Pair p, int i) { return static_cast<Scalar>(p >> 16 * i); }
  static DNASM_DEVICE float low(Pair p) { return half_to_float(static_cast<uint16_t>(p)); }
  static DNASM_DEVICE float high(Pair p) { return half_to_float(static_cast<uint16_t>(p >> 16)); }
  static DNASM_DEVICE Pair pack(float a, float b) { return pack_half2(a, b); }
};

template <>
struct Element<kFloat32> {
  using Scalar = float;
  using Pair = Complex;
  static DNASM_DEVICE Pair join(Scalar a, Scalar b) { return {a, b}; }
  static DNASM_DEVICE Scalar pick(Pair p, int i) { return i ? p.im : p.re; }
  static DNASM_DEVICE float low(Pair p) { return p.re; }
  static DNASM_DEVICE float high(Pair p) { return p.im; }
  static DNASM_DEVICE Pair pack(float a, float b) { return {a, b}; }
};

// 2^e as a float; e is clamped to the normal floats.
DNASM_DEVICE float power_of_two(int e) {
  e = e < -126 ? -126 : e > 127 ? 127 : e;
  return bits_float(static_cast<uint32_t>(e + 127) << 23);
}

// Four half2 words each of re and im: one fragment of 16 x 16 complex numbers.
struct Tile {
  uint32_t re[4], im[4];
};

// x *= (c, s), or its conjugate, word by word.
template <bool kConjugate>
DNASM_DEVICE void multiply(uint32_t& re, uint32_t& im, uint32_t c, uint32_t s) {
  const uint32_t cross_re = mul_half2(im, s), cross_im = mul_half2(re, s);
  if (kConjugate) {
    re = fma_half2(re, c, cross_re);
    im = fma_half2(im, c, neg_half2(cross_im));
  } else {
    re = fma_half2(re, c, neg_half2(cross_re));
    im = fma_half2(im, c, cross_im);
  }
}

template <bool kConjugate>
DNASM_DEVICE void multiply(Tile& x, const Quad& c, const Quad& s) {
  DNASM_UNROLL
  for (int w = 0; w < 4; ++w) multiply<kConjugate>(x.re[w], x.im[w], c.w[w], s.w[w]);
}

}  // namespace dnasm
