// Plans of several blocks in float32: a right-angle transform of all outer rows down each column, then one of
// every row. For filters, their gradients and the float32 route.
#pragma once

#include "wide.cuh"

namespace dnasm {

// Which frequency s, of `rows`, an outer row holds: with `deep` > 1 rows of a second level, row0 deep + row1, each level
// in Level's order; s = s0 + rows / deep s1.
struct RowOrder {
  int rows, deep;
  int64_t length;  // L
  static DNASM_SHARED_CODE int digit(int row, int radix) { return radix < 16 ? row : row / (radix / 16) + 16 * (row % (radix / 16)); }
  static DNASM_SHARED_CODE int undigit(int s, int radix) { return radix < 16 ? s : s % 16 * (radix / 16) + s / 16; }
  DNASM_SHARED_CODE int frequency(int row) const {
    const int wide = rows / deep;
    return digit(row / deep, wide) + wide * digit(row % deep, deep);
  }
  DNASM_SHARED_CODE int row(int s) const {
    const int wide = rows / deep;
    return undigit(s % wide, wide) * deep + undigit(s / wide, deep);
  }
  DNASM_SHARED_CODE int columns() const { return static_cast<int>(length / rows); }
  // e(quarters / (4 L))
  DNASM_DEVICE Complex turn(int64_t quarters) const {
    return cos_sin_pi(static_cast<float>(quarters & (4 * length - 1)) / static_cast<float>(2 * length));
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

// All rows of 4096 / rows columns. A thread has sixteen rows of one column, rows / 16 apart: the first stage's butterfly on
// the way there and the last one's on the way back, and sixteen rows of the result, whose frequencies follow each other.
using WideColumns = Wide<4096>;
static_assert(WideColumns::kN == 16 * WideColumns::kThreads);

struct ColumnThread {
  const RowOrder& order;
  const WideColumns wide;
  int rows, apart, column, row, at;  // rows / 16; this thread's column; its first row; where it stands among the points
  int frequency;                     // of its first result; the others follow

  DNASM_DEVICE ColumnThread(const RowOrder& o, int block) : order(o), wide(1), rows(o.rows), apart(o.rows / 16) {
    const int width = WideColumns::kN / rows, c = thread_index() % width;
    row = thread_index() / width;
    column = block * width + c, at = c * rows + row;
    frequency = 16 * WideColumns::frequency(row, apart);
  }
  DNASM_DEVICE int element(int k) const { return (row + k * apart) * order.columns() + column; }
  DNASM_DEVICE int64_t result(int k) const {  // where row k of the results stands
    return (static_cast<int64_t>(order.row(frequency)) + k * apart) * order.columns() + column;
  }
  // e(n1 / (4 rows)): the quarter of the transform
  DNASM_DEVICE void quarters(Complex (&w)[16]) const {
    const Complex first = cos_sin_pi(static_cast<float>(row) / static_cast<float>(2 * rows));
    powers(Complex{0.99518472667219693f, 0.098017140329560604f}, w);  // e(1 / 64)
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) w[k] = w[k] * first;
  }
  DNASM_DEVICE void twiddles(Complex (&w)[16]) const {
    powers(cos_sin_pi(2.0f * static_cast<float>(row) / static_cast<float>(rows)), w);
  }
  // e(column (s + 1/4 - rows/4) / L), as in Level
  DNASM_DEVICE void turns(Complex (&w)[16]) const {
    powers(order.turn(4ll * column), w);
    const Complex first = order.turn(static_cast<int64_t>(column) * (4 * frequency + 1 - rows));
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) w[k] = w[k] * first;
  }
};

// The stages of every `size` neighbouring points.
template <bool kInverse, int kSize = 256>
DNASM_DEVICE void column_stages(const WideColumns& wide, int size) {
  if (size == kSize) {
    if constexpr (kInverse) wide.inverse_stages<kSize>();
    else wide.forward_stages<kSize>();
  } else if constexpr (kSize > 2) {
    column_stages<kInverse, kSize / 2>(wide, size);
  }
}

// load(thread, v): a thread's sixteen elements of a block of columns; to rows of L numbers.
template <class Load>
DNASM_DEVICE void columns_forward(const RowOrder& order, int block, Complex* to, const Load& load) {
  const ColumnThread me(order, block);
  Complex v[16], w[16];
  load(me, v);
  me.quarters(w);
  DNASM_UNROLL
  for (int k = 0; k < 16; ++k) v[k] = v[k] * w[k];
  small_dft<16, false>(v);
  if (me.apart > 1) {
    me.twiddles(w);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) me.wide.at(me.at + k * me.apart) = v[k] * w[k];
    sync_block();
    column_stages<false>(me.wide, me.apart);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) v[k] = me.wide.at(me.at + k * me.apart);
  }
  me.turns(w);
  DNASM_UNROLL
  for (int k = 0; k < 16; ++k) to[me.result(k)] = v[k] * w[k];
}

// The adjoint: emit(n, z) of all elements of a block of columns.
template <class Emit>
DNASM_DEVICE void columns_inverse(const RowOrder& order, int block, const Complex* from, const Emit& emit) {
  const ColumnThread me(order, block);
  Complex v[16], w[16];
  me.turns(w);
  DNASM_UNROLL
  for (int k = 0; k < 16; ++k) v[k] = from[me.result(k)] * conjugate(w[k]);
  if (me.apart > 1) {
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) me.wide.at(me.at + k * me.apart) = v[k];
    sync_block();
    column_stages<true>(me.wide, me.apart);
    me.twiddles(w);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) v[k] = me.wide.at(me.at + k * me.apart) * conjugate(w[k]);
  }
  small_dft<16, true>(v);
  me.quarters(w);
  DNASM_UNROLL
  for (int k = 0; k < 16; ++k) emit(me.element(k), v[k] * conjugate(w[k]));
}

template <class P>
struct FilterStaging {
  RowOrder order;
  int64_t channel;  // the first one of this launch
  float* bounds;    // [channel][blocks of columns]: sums of |k|
  Complex* rows;    // [channel of this launch][L]
  int spectrum_top;
  DNASM_SHARED_CODE int blocks() const { return order.columns() / (WideColumns::kN / order.rows); }
};

template <class P>
DNASM_KERNEL(WideColumns::kThreads, 2) filter_columns_kernel(const Params p, const FilterStaging<P> work) {
  const int block = block_index() % work.blocks(), here = block_index() / work.blocks();
  const int channel = static_cast<int>(work.channel) + here;
  const FilterTaps taps(p, channel, static_cast<int>(work.order.length));
  float bound = 0;
  const bool plain = p.filter_dtype == kFloat32 && !taps.both;
  const float* filter = static_cast<const float*>(p.filter) + taps.past;
  columns_forward(work.order, block, work.rows + here * work.order.length, [&](const ColumnThread& me, Complex(&v)[16]) {
    DNASM_UNROLL
    for (int k = 0; k < 16 && plain; ++k) {  // no branch between loads: all are under way together
      const int n = me.element(k);
      v[k] = {taps.has_past(n) ? filter[n] : 0.0f, 0};
    }
    DNASM_UNROLL
    for (int k = 0; k < 16 && !plain; ++k) v[k] = load_tap(p, taps, me.element(k), 1.0f);
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) bound += fabsf(v[k].re) + fabsf(v[k].im);
  });
  if (!work.bounds) return;
  sync_block();
  bound = block_sum<WideColumns::kThreads>(bound, reinterpret_cast<float*>(dynamic_shared()));
  if (thread_index() == 0) work.bounds[here * work.blocks() + block] = bound;
}

// Rows to spectra in the order of plan P.
template <class P>
DNASM_KERNEL(PlanWide<P>::kThreads, PlanWide<P>::kBlocksPerSm)
filter_rows_kernel(const Params p, const FilterStaging<P> work, const SpectrumLayout layout) {
  using W = PlanWide<P>;
  const W wide(1);
  const int rows = work.order.rows, here = block_index() / rows, row = block_index() % rows;
  const int64_t channel = work.channel + here;
  const Complex* from = work.rows + here * work.order.length + static_cast<int64_t>(row) * W::kN;
  wide.forward(0, [&](int n) { return from[n]; });
  float bound = 0;
  for (int i = thread_index(); i < work.blocks(); i += W::kThreads) bound += work.bounds[here * work.blocks() + i];
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
DNASM_KERNEL(PlanWide<P>::kThreads, PlanWide<P>::kBlocksPerSm) gradient_rows_kernel(const GradientWork work) {
  using W = PlanWide<P>;
  const W wide(1);
  const int row = block_index() % work.order.rows, here = block_index() / work.order.rows;
  float* sums = work.partial + (static_cast<int64_t>(here) * work.chunks * work.order.length + static_cast<int64_t>(row) * W::kN) * 2;
  wide.read_partials(0, sums, work.chunks, work.order.length * 2, work.scale);
  wide.inverse(0, [&](int n, Complex z) { reinterpret_cast<Complex*>(sums)[n] = z; });
}

template <class P>
DNASM_KERNEL(WideColumns::kThreads, 2) gradient_columns_kernel(const Params p, const GradientWork work) {
  const int blocks = work.order.columns() / (WideColumns::kN / work.order.rows);
  const int block = block_index() % blocks, here = block_index() / blocks, channel = static_cast<int>(work.channel) + here;
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
