// The DFT matrices and twiddles of a plan, as fp16 fragments; computed on the device, once for each filter_spectrum.
#pragma once

#include "plan.cuh"
#include "numeric.cuh"

namespace dnasm {

// A table entry is scale * (cos, sin or -sin) of 2 pi turns.
struct Entry {
  int part;  // 0: cos, 1: sin, -1: -sin, 2: nothing (0)
  float turns, scale;
  DNASM_DEVICE float value() const {
    if (part == 2) return 0.0f;
    const Complex c = cos_sin_pi(2.0f * turns);
    return scale * (part == 0 ? c.re : part == 1 ? c.im : -c.im);
  }
};

// num / den turns, exact: den is a power of two, and only the fraction of a turn is kept.
DNASM_DEVICE Entry entry(int part, int64_t num, int den, float scale = 1.0f) {
  return {part, static_cast<float>(num & (den - 1)) / static_cast<float>(den), scale};
}

template <class P>
struct TableMaker {
  using R = typename P::Rows;
  int g, q;  // lane / 4, lane % 4

  // Half h of word w of `row`, for this lane.
  DNASM_DEVICE Entry operator()(int row, int w, int h) const {
    const int i = g + 8 * (w % 2), j = 2 * q + h + 8 * (w / 2);  // in a fragment F(i, j)
    const int column = sigma(2 * q + h + 8 * (w % 2));           // in (re, re, im, im) words: word w % 2 of a row of 16
    constexpr int kBelow16 = P::kR1 == 16 ? 1 : P::kR1;          // R1 where it is below 16
    if (row < R::kFirst) return entry(row == 0 ? 0 : row == 1 ? 1 : -1, sigma(i) * sigma(j), 16, 0.25f);
    if (row < R::kMiddle) {
      const int k = row - R::kFirst;
      if (P::kR1 == 16) return k < 2 ? entry(k, j * (4 * i + 1), 64, 0.25f) : entry(k - 2, i * (4 * j + 1), 64, 0.25f);
      return k == 0 ? small_first(kBelow16, w, 2 * q + h) : Entry{2, 0, 0};
    }
    if (row < R::kInner) {  // [[re, -im], [im, re]] forward, its conjugate back
      const bool im_out = w % 2, im_in = w / 2;
      const int sign = im_out == im_in ? 0 : (im_out != (row > R::kMiddle)) ? 1 : -1;
      return entry(sign, g * (2 * q + h), 8, 0.35355339059327379f);
    }
    if (row < R::kOuterForward) return entry(row - R::kInner, sigma(i) * sigma(j), 256);
    if (row < R::kOuterInverse) return outer_forward(kBelow16, row - R::kOuterForward, w, h, i, j);
    if (row < R::kMiddleForward) return outer_inverse(row - R::kOuterInverse, w, i, j, column);
    if (row < R::kMiddleInverse) {
      const int r = sigma(row - R::kMiddleForward) * 16 + column;
      return entry(w / 2, r * g, 2048);
    }
    const int k = row - R::kMiddleInverse;
    return entry(k % 2, (16 * sigma(i) + sigma(j)) * (k / 2), 2048);
  }

  // Radix 2, 4, 8: words 0-1 are the 16 x 8 matrix (re over im), words 2-3 its 16 x 8 counterpart on the way back.
  // Blocks of R1 on the diagonal.
  DNASM_DEVICE Entry small_first(int r1, int w, int e) const {
    if (g / r1 != e / r1) return {2, 0, 0};
    const int n1 = (w < 2 ? e : g) % r1, m1 = (w < 2 ? g : e) % r1;
    const float scale = r1 == 2 ? 0.70710678118654752f : r1 == 4 ? 0.5f : r1 == 8 ? 0.35355339059327379f : 1.0f;
    return entry(w % 2, n1 * (4 * m1 + 1), 4 * r1, scale);
  }
  DNASM_DEVICE Entry outer_forward(int r1, int row, int w, int h, int i, int j) const {
    const int u = row / 2, part = row % 2;
    if (P::kR1 == 16) return outer(part, 16 * u + sigma(j), i);
    const int r = P::unit_column(u) + g / r1 * r1 * 32 + w / 2 * 16 + sigma(2 * q + h + 8 * (w % 2));
    return outer(part, r, g % r1);
  }
  DNASM_DEVICE Entry outer_inverse(int row, int w, int i, int j, int column) const {
    if (P::kDirect) return outer(row % 2, sigma(i), j);
    if (P::kR2 == 1) return outer(row % 2, 16 * sigma(i) + sigma(j), row / 2);
    return outer(w / 2, 256 * g + 16 * sigma(row % 16) + column, row / 16);
  }
  static DNASM_DEVICE Entry outer(int part, int r, int m1) {
    return entry(part, static_cast<int64_t>(r) * (4 * m1 + 1), 4 * P::kLength);
  }
};

template <class P>
DNASM_DEVICE void write_table_row(Quad* tables, int row, int lane) {
  const TableMaker<P> maker{lane / 4, lane % 4};
  Quad quad;
  for (int w = 0; w < 4; ++w) quad.w[w] = pack_half2(maker(row, w, 0).value(), maker(row, w, 1).value());
  tables[row * 32 + lane] = quad;
}

}  // namespace dnasm
