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
    const bool right = (row >= R::kDftRight && row < R::kFirst) || (P::kR1 == 16 && row >= R::kFirst + 2 && row < R::kInner);
    if (right) w = w % 2 * 2 + w / 2;
    const int i = g + 8 * (w % 2), j = 2 * q + h + 8 * (w / 2);  // in a fragment F(i, j)
    constexpr int kBelow16 = P::kR1 == 16 ? 1 : P::kR1;          // R1 where it is below 16
    if (row < R::kFirst) return entry(row % 3 == 2 ? -1 : row % 3, sigma(i) * sigma(j), 16, 0.25f);
    if (row < R::kInner) {
      const int k = row - R::kFirst;
      if (P::kR1 == 16) return k < 2 ? entry(k, j * (4 * i + 1), 64, 0.25f) : entry(k - 2, i * (4 * j + 1), 64, 0.25f);
      return k == 0 ? small_first(kBelow16, w, 2 * q + h) : Entry{2, 0, 0};
    }
    if (row < R::kMiddle) return entry(row - R::kInner, sigma(i) * sigma(j), 256);
    if (row < R::kOuterForward) return middle(row - R::kMiddle, w, 2 * q + h);
    if (row < R::kOuterInverse) return outer_forward(kBelow16, row - R::kOuterForward, w, h, i, j);
    const int k = row - R::kOuterInverse;
    if (P::kDirect) return outer(k % 2, sigma(i), j);
    return outer(k % 2, 16 * sigma(i) + sigma(j), k / 2 / P::kR2 + P::kR1 * (k / 2 % P::kR2));
  }

  // Radix 2, 4, 8: words 0-1 are the 16 x 8 matrix (re over im), words 2-3 its 16 x 8 counterpart on the way back.
  // Blocks of R1 on the diagonal.
  DNASM_DEVICE Entry small_first(int r1, int w, int e) const {
    if (g / r1 != e / r1) return {2, 0, 0};
    const int n1 = (w < 2 ? e : g) % r1, m1 = (w < 2 ? g : e) % r1;
    const float scale = r1 == 2 ? 0.70710678118654752f : r1 == 4 ? 0.5f : r1 == 8 ? 0.35355339059327379f : 1.0f;
    return entry(w % 2, n1 * (4 * m1 + 1), 4 * r1, scale);
  }
  // [[re, -im], [im, re]] of e(n2 (M + 1/4) / (R1 R2)), M = m1 + R1 m2: out m2 = g, in n2; on the way back the conjugate,
  // out n2 = g, in m2.
  DNASM_DEVICE Entry middle(int row, int w, int in) const {
    const bool im_out = w % 2, im_in = w / 2, back = row % 2;
    const int n2 = back ? g : in, m2 = back ? in : g;
    const int part = im_out == im_in ? 0 : im_out != back ? 1 : -1;
    return entry(part, n2 * (4 * (row / 2 + P::kR1 * m2) + 1), 4 * P::kR1 * P::kR2, 0.35355339059327379f);
  }
  DNASM_DEVICE Entry outer_forward(int r1, int row, int w, int h, int i, int j) const {
    const int u = row / 2, part = row % 2;
    if (P::kR2 > 1) {  // [m1][p]: words re, re, im, im of columns below and from 8, m2 = g
      const int r = sigma(row % 16) * 16 + sigma(2 * q + h + 8 * (w % 2));
      return outer(w / 2, r, row / 16 + P::kR1 * g);
    }
    if (P::kR1 == 16) return outer(part, 16 * u + sigma(j), i);
    const int r = P::unit_column(u) + g / r1 * r1 * 32 + w / 2 * 16 + sigma(2 * q + h + 8 * (w % 2));
    return outer(part, r, g % r1);
  }
  static DNASM_DEVICE Entry outer(int part, int r, int m) {
    return entry(part, static_cast<int64_t>(r) * (4 * m + 1), 4 * P::kLength);
  }
};

// Where outer levels of R rows stand above, what is left of a sequence whose row holds frequency s of R is a transform at
// m + (s + 1/4) / R in place of m + 1/4, see Level. Its first stage of 16 rows, there (2 table rows, left) and back (2, right):
DNASM_DEVICE Entry first_entry(int above, int s, int row, int w, int h, int lane) {
  if (row >= 2) w = w % 2 * 2 + w / 2;
  const int i = lane / 4 + 8 * (w % 2), j = lane % 4 * 2 + h + 8 * (w / 2), m = row < 2 ? i : j, n = row < 2 ? j : i;
  return entry(row % 2, static_cast<int64_t>(n) * (4 * (static_cast<int64_t>(m) * above + s) + 1), 64 * above, 0.25f);
}

// A row's own tables. Stage 1 takes the shift up as it is; the twiddle after it, common to all rows, keeps 1/4, and what is
// left, e(r delta / N) with delta = (s + 1/4) / R - 1/4 and r = 16 r1 + r2, goes to the inner matrices and twiddles.
template <class P>
DNASM_DEVICE Entry row_entry(int above, int s, int row, int w, int h, int lane) {
  using R = RowTables;
  if (row < R::kForward) return first_entry(above, s, row, w, h, lane);
  const int i = lane / 4 + 8 * (w % 2), j = lane % 4 * 2 + h + 8 * (w / 2);
  const int whole = 4 * above * P::kLength, delta = 4 * s + 1 - above;
  const int64_t product = sigma(i) * sigma(j), r = sigma(row < R::kBack ? j : i);
  if (row >= R::kInnerBack || (row >= R::kInner && row < R::kBack))
    return entry((row - R::kInner) % (R::kInnerBack - R::kInner), product * (whole / 256) + r * delta, whole);
  const int k = row - (row < R::kBack ? R::kForward : R::kBack);
  return entry(k == 2 ? -1 : k, product * (whole / 16) + 16 * r * delta, whole, 0.25f);
}

template <class P>
DNASM_DEVICE void write_table_row(Quad* tables, int row, int lane) {
  const TableMaker<P> maker{lane / 4, lane % 4};
  Quad quad;
  for (int w = 0; w < 4; ++w) quad.w[w] = pack_half2(maker(row, w, 0).value(), maker(row, w, 1).value());
  tables[row * 32 + lane] = quad;
}

}  // namespace dnasm
