// Complex numbers in float32, small transforms in registers, and roots of unity by multiplication.
#pragma once

#include "numeric.cuh"

namespace dnasm {

DNASM_DEVICE Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
DNASM_DEVICE Complex operator*(float a, Complex b) { return {a * b.re, a * b.im}; }
DNASM_DEVICE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
DNASM_DEVICE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
DNASM_DEVICE Complex widen(float a) { return {a, 0}; }
DNASM_DEVICE Complex widen(Complex a) { return a; }
DNASM_DEVICE Complex conjugate(Complex a) { return {a.re, -a.im}; }

// Powers of two without divisions.
DNASM_DEVICE int shift_of(int power) { return static_cast<int>(float_bits(static_cast<float>(power)) >> 23) - 127; }
DNASM_DEVICE float one_over(int64_t power) { return bits_float((254u << 23) - float_bits(static_cast<float>(power))); }

// v[m] = sum_n v[n] e(n m / kR), or e(-n m / kR).
template <int kR, bool kInverse>
DNASM_DEVICE void small_dft(Complex (&v)[kR]) {
  static_assert(kR <= 32);
  if constexpr (kR > 1) {
    constexpr float kCos[9] = {1.0f, 0.98078528040323045f, 0.92387953251128674f, 0.83146961230254524f, 0.70710678118654752f,
                               0.55557023301960222f, 0.38268343236508977f, 0.19509032201612827f, 0.0f};
    Complex even[kR / 2], odd[kR / 2];
    DNASM_UNROLL
    for (int k = 0; k < kR / 2; ++k) even[k] = v[2 * k], odd[k] = v[2 * k + 1];
    small_dft<kR / 2, kInverse>(even);
    small_dft<kR / 2, kInverse>(odd);
    DNASM_UNROLL
    for (int k = 0; k < kR / 2; ++k) {
      const int turn = k * (32 / kR);  // of 32
      Complex t = odd[k];
      if (turn == 8) t = kInverse ? Complex{t.im, -t.re} : Complex{-t.im, t.re};
      float c = 1;
      if (turn % 8) {  // the cosine comes last, as a factor of sums: six operations instead of eight
        c = turn < 8 ? kCos[turn] : -kCos[16 - turn];
        const float s = turn < 8 ? kCos[8 - turn] : kCos[turn - 8], tangent = kInverse ? -s / c : s / c;
        t = {t.re - tangent * t.im, t.im + tangent * t.re};
      }
      v[k] = even[k] + c * t;
      v[k + kR / 2] = even[k] - c * t;
    }
  }
}

// 1, z, z^2, ...
template <int kCount>
DNASM_DEVICE void powers(Complex z, Complex (&w)[kCount]) {
  w[0] = {1, 0}, w[1] = z;
  DNASM_UNROLL
  for (int m = 2; m < kCount; ++m) w[m] = w[m / 2] * w[m - m / 2];
}
DNASM_SHARED_CODE int top_bit(int m) { return m >= 16 ? 16 : m >= 8 ? 8 : m >= 4 ? 4 : m >= 2 ? 2 : 1; }
// w[kInner i + j] = first outer^i inner^j
template <int kCount, int kInner = kCount>
DNASM_DEVICE void progression(Complex first, Complex inner, Complex outer, Complex (&w)[kCount]) {
  Complex ratio = kInner > 1 ? inner : outer;
  w[0] = first;
  DNASM_UNROLL
  for (int m = 1; m < kCount; ++m) {
    if (m > 1 && m == top_bit(m)) ratio = m == kInner ? outer : ratio * ratio;
    w[m] = w[m - top_bit(m)] * ratio;
  }
}

}  // namespace dnasm
