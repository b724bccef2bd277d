// Plans of several blocks in float32: a right-angle transform of all outer rows down each column, then one of
// every row. For filters, their gradients and the float32 route.
#pragma once

#include "wide.cuh"

namespace dnasm {

// How outer rows stand: those of a second level, `deep` > 1, as row0 deep + row1, each level in Level's order.
struct RowOrder {
  int rows, deep;
  int64_t length;  // L
  DNASM_SHARED_CODE int blocks() const { return static_cast<int>(length / 4096); }  // of columns
  // e(quarters / (4 L)); L is at most 2^24
  DNASM_DEVICE Complex turn(uint32_t quarters) const {
    return cos_sin_pi(static_cast<float>(quarters & (4 * static_cast<uint32_t>(length) - 1)) * one_over(2 * length));
  }
};

constexpr int kWidestLevel = 256;  // rows of one outer level

#if !defined(DNASM_RING_BYTES)
#define DNASM_RING_BYTES (128 << 20)  // larger than an L2 cache: fewer and longer launches measured faster
#endif
// How many of `count` things of so many bytes a launch works on, in scratch that the next one uses again.
inline int64_t ring_share(int64_t count, int64_t bytes_each) {
  const int64_t fit = (DNASM_RING_BYTES) / bytes_each;
  return fit < 1 ? 1 : fit < count ? fit : count;
}

// All rows of 4096 / rows columns. A thread begins with sixteen rows of one column, rows / 16 apart, and ends with sixteen
// results that stand side by side among the block's points: the last stage's, of radix 16, or of rows / 16 where that is less.
using WideColumns = Wide<4096>;
static_assert(WideColumns::kN == 16 * WideColumns::kThreads);

struct ColumnThread {
  const RowOrder& order;
  const WideColumns wide;
  int rows, apart, columns, column, row, first;  // apart: rows / 16; first: where this thread's column stands

  DNASM_DEVICE ColumnThread(const RowOrder& o, int block) : order(o), rows(o.rows), apart(o.rows / 16) {
    const int rows_shift = shift_of(rows), shift = shift_of(WideColumns::kN) - rows_shift, c = thread_index() & ((1 << shift) - 1);
    columns = static_cast<int>(order.length >> rows_shift), row = static_cast<int>(thread_index()) >> shift;
    column = (block << shift) + c, first = c * rows;
  }
  DNASM_DEVICE int element(int k) const { return (row + k * apart) * columns + column; }
  // The frequency of the first result, the last stage's radix being kB; result i kB + j holds i + j rows / kB more.
  template <int kB>
  DNASM_DEVICE int frequency() const {
    if (kB < 16) return 16 / kB * row;
    const int deep = shift_of(apart) - 4;  // digits, reversed: row / 2^deep, row % 2^deep
    return (row >> deep) + 16 * (row & ((1 << deep) - 1));
  }
  template <int kB>
  DNASM_DEVICE int64_t result(int k) const {  // where result k goes
    int to = 16 * row + k;
    if (kB == 16 && order.deep > 1) {  // of 16 rows of `apart`
      const int deep = shift_of(apart) - 4, s = frequency<16>() + k * apart;
      to = ((s & 15) << (deep + 4)) + ((s >> 4 & 15) << deep) + (s >> 8);
    }
    return static_cast<int64_t>(to) * columns + column;
  }
  // e(k / 64): the quarter of the transform, short of e(row / (4 rows))
  static DNASM_DEVICE void quarters(Complex (&w)[16]) { powers(Complex{0.99518472667219693f, 0.098017140329560604f}, w); }
  // e(row (k + 1/4) / rows)
  DNASM_DEVICE void twiddles(Complex (&w)[16]) const {
    const float turn = 2.0f * static_cast<float>(row) * one_over(rows);
    const Complex ratio = cos_sin_pi(turn);
    progression(cos_sin_pi(0.25f * turn), ratio, ratio, w);
  }
  // e(column (s + 1/4) / L), so that rows are left with whole frequencies
  template <int kB>
  DNASM_DEVICE void turns(Complex (&w)[16]) const {
    const uint32_t n = static_cast<uint32_t>(column);
    progression<16, kB>(order.turn(n * static_cast<uint32_t>(4 * frequency<kB>() + 1)),
                        order.turn(n * static_cast<uint32_t>(4 * (rows / kB))), order.turn(4 * n), w);
  }
  // act(radix of the last stage), a constant
  template <int kB = 1, class Act>
  DNASM_DEVICE void by_radix(const Act& act) const {
    if (kB == 16 || apart == kB) return act(Radix<kB>());
    if constexpr (kB < 16) by_radix<2 * kB>(act);
  }
  template <int kB>
  struct Radix {
    static constexpr int kRadix = kB;
    template <bool kInverse>
    static DNASM_DEVICE void dft(Complex (&v)[16]) {
      DNASM_UNROLL
      for (int i = 0; i < 16; i += kB) {
        Complex part[kB];
        DNASM_UNROLL
        for (int j = 0; j < kB; ++j) part[j] = v[i + j];
        small_dft<kB, kInverse>(part);
        DNASM_UNROLL
        for (int j = 0; j < kB; ++j) v[i + j] = part[j];
      }
    }
  };
  // Between the first stage and the last, where their radices are not all.
  template <bool kInverse, int kR = 2>
  DNASM_DEVICE void middle() const {
    if (apart == 16 * kR) return wide.stage<16 * kR, kR, kInverse>();
    if constexpr (kR < 16) middle<kInverse, 2 * kR>();
  }
};

// load(thread, w, v): a thread's sixteen elements of a block of columns, times w; to rows of L numbers.
template <class Load>
DNASM_DEVICE void columns_forward(const RowOrder& order, int block, Complex* to, const Load& load) {
  const ColumnThread me(order, block);
  Complex v[16], w[16];
  me.quarters(w);
  load(me, w, v);
  small_dft<16, false>(v);
  if (me.apart > 1) {
    Complex* at = &me.wide.at(me.first + me.row);
    me.twiddles(w);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) at[WideColumns::padded(k * me.apart)] = v[k] * w[k];
    sync_block();
    me.middle<false>();
    at = &me.wide.at(me.first + 16 * me.row);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) v[k] = at[k];
  }
  me.by_radix([&](auto radix) {
    radix.template dft<false>(v);
    me.turns<radix.kRadix>(w);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) to[me.result<radix.kRadix>(k)] = v[k] * w[k];
  });
}

// The adjoint: emit(n, z) of all elements of a block of columns.
template <class Emit>
DNASM_DEVICE void columns_inverse(const RowOrder& order, int block, const Complex* from, const Emit& emit) {
  const ColumnThread me(order, block);
  Complex v[16], w[16];
  me.by_radix([&](auto radix) {
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) v[k] = from[me.result<radix.kRadix>(k)];
    me.turns<radix.kRadix>(w);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) v[k] = v[k] * conjugate(w[k]);
    radix.template dft<true>(v);
  });
  if (me.apart > 1) {
    Complex* at = &me.wide.at(me.first + 16 * me.row);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) at[k] = v[k];
    sync_block();
    me.middle<true>();
    me.twiddles(w);
    at = &me.wide.at(me.first + me.row);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) v[k] = at[WideColumns::padded(k * me.apart)] * conjugate(w[k]);
  }
  small_dft<16, true>(v);
  me.quarters(w);
  DNASM_UNROLL
  for (int k = 0; k < 16; ++k) emit(me.element(k), v[k] * conjugate(w[k]));
}

constexpr int kColumnBlocks = WideColumns::blocks_per_sm(80), kColumnBlocksBack = WideColumns::blocks_per_sm(64);

template <class P>
struct FilterStaging {
  RowOrder order;
  int64_t channel;  // the first one of this launch
  float* bounds;    // [channel][blocks of columns]: sums of |k|
  Complex* rows;    // [channel of this launch][L]
  int spectrum_top;
  DNASM_SHARED_CODE int blocks() const { return order.blocks(); }
};

template <class P>
DNASM_KERNEL(WideColumns::kThreads, kColumnBlocks) filter_columns_kernel(const Params p, const FilterStaging<P> work) {
  const int shift = shift_of(work.blocks()), block = block_index() & ((1 << shift) - 1), here = block_index() >> shift;
  const int channel = static_cast<int>(work.channel) + here;
  const FilterTaps taps(p, channel, static_cast<int>(work.order.length));
  float bound = 0;
  columns_forward(work.order, block, work.rows + here * work.order.length, [&](const ColumnThread& me, Complex(&w)[16], Complex(&v)[16]) {
    with_taps(p, taps, bound, [&](const auto& tap) {
      decltype(tap(0)) x[16];
      DNASM_UNROLL
      for (int k = 0; k < 16; ++k) x[k] = tap(me.element(k));
      DNASM_UNROLL
      for (int k = 0; k < 16; ++k) v[k] = x[k] * w[k];
    });
  });
  if (!work.bounds) return;
  sync_block();
  bound = block_sum<WideColumns::kThreads>(bound, reinterpret_cast<float*>(dynamic_shared()));
  if (thread_index() == 0) work.bounds[(here << shift) + block] = bound;
}

// Rows to spectra in the order of plan P.
template <class P>
DNASM_KERNEL(PlanWide<P>::kThreads, PlanWide<P>::blocks_per_sm(64))
filter_rows_kernel(const Params p, const FilterStaging<P> work, const SpectrumLayout layout) {
  using W = PlanWide<P, P::kLength, false>;
  const W wide;
  const int shift = shift_of(work.order.rows), here = block_index() >> shift, row = block_index() & ((1 << shift) - 1);
  const int64_t channel = work.channel + here;
  const Complex* from = work.rows + here * work.order.length + static_cast<int64_t>(row) * W::kN;
  float bound = 0;
  const int blocks = work.blocks();
  for (int i = thread_index(); i < blocks; i += W::kThreads) bound += work.bounds[here * blocks + i];
  wide.begin(0, [&](int n) { return from[n]; });
  bound = block_sum<W::kThreads>(bound, wide.scratch);
  const int exponent = spectrum_exponent(bound, work.spectrum_top);
  if (row == 0 && thread_index() == 0) layout.exponents(p)[channel] = exponent;
  wide.write_spectrum(0, exponent, layout.channel(p, channel) + static_cast<int64_t>(row) * (4 * W::kN));
}

// The filter's gradient from its spectrum's partial sums, see FilterGradient.
struct GradientWork {
  RowOrder order;
  int64_t channel;    // the first one of this launch
  int chunks;
  float* partial;     // [channel of this launch][chunk][row][2 N]
  float scale;
  const float* skip_sums;  // of the whole call
  int skip_partials;       // of a channel
};

// Rows back to columns, in place of a channel's first partial sum.
template <class P>
DNASM_KERNEL(PlanWide<P>::kThreads, PlanWide<P>::blocks_per_sm(80)) gradient_rows_kernel(const GradientWork work) {
  using W = PlanWide<P, P::kLength, false>;
  const W wide;
  const int shift = shift_of(work.order.rows), row = block_index() & ((1 << shift) - 1), here = block_index() >> shift;
  float* sums = work.partial + (static_cast<int64_t>(here) * work.chunks * work.order.length + static_cast<int64_t>(row) * W::kN) * 2;
  wide.inverse(
      0, [&](int r, Complex(&v)[16]) { wide.read_partials(0, sums, work.chunks, work.order.length * 2, work.scale, r, v); },
      [&](int n, Complex z) { reinterpret_cast<Complex*>(sums)[n] = z; });
}

template <class P>
DNASM_KERNEL(WideColumns::kThreads, kColumnBlocksBack) gradient_columns_kernel(const Params p, const GradientWork work) {
  const int blocks = work.order.blocks(), shift = shift_of(blocks);
  const int block = block_index() & (blocks - 1), here = block_index() >> shift, channel = static_cast<int>(work.channel) + here;
  if (block == 0)
    skip_gradient<WideColumns::kThreads>(p, channel, work.skip_sums, work.skip_partials, reinterpret_cast<float*>(dynamic_shared()));
  if (!p.dk) return;
  const FilterTaps taps(p, channel, static_cast<int>(work.order.length));
  const Complex* from = reinterpret_cast<const Complex*>(work.partial) + static_cast<int64_t>(here) * work.chunks * work.order.length;
  columns_inverse(work.order, block, from, [&](int n, Complex z) { taps.store(p.dk, n, z, false); });
  taps.clear_rest(p.dk, p.filter_length, static_cast<int64_t>(block) * WideColumns::kThreads + thread_index(),
                  static_cast<int64_t>(blocks) * WideColumns::kThreads);
}

}  // namespace dnasm
