// The float32 route past one block: columns of all outer rows, each row's convolution, columns back; the rows stand in scratch.
#pragma once

#include "precise.cuh"
#include "schedule.cuh"
#include "wide_outer.cuh"

namespace dnasm {

template <int kRow>
using PreciseWide = Wide<kRow, kRow / 16, 1, false>;

struct PreciseLongWork {
  RowOrder order;
  int64_t sequence;  // the first one of this launch, numbered channel by channel
  Complex *x, *g;    // [sequence of this launch][L]
  int batch, chunks;  // backward: sequences of a channel in this launch, and blocks that share them
  Complex* partial;   // [channel][chunk][L]: sums of G conj X
  bool first;         // the channel's first launch
  float* skip_sums;   // [sequence of the tensor][block of columns]

  DNASM_SHARED_CODE int blocks() const { return order.blocks(); }
  DNASM_DEVICE int64_t here() const { return block_index() / blocks(); }
};

// The block's sequence.
template <int kDtype>
DNASM_DEVICE PreciseRow<kDtype> precise_sequence(const Params& p, const PreciseLongWork& work) {
  const int64_t sequence = work.sequence + work.here();
  return {p, sequence / p.batch, {sequence % p.batch, 0, static_cast<int>(p.length)}};
}

template <int kDtype>
DNASM_KERNEL(WideColumns::kThreads, kColumnBlocks)
precise_columns_kernel(const Params p, const PreciseLongWork work, const Rows tensor, const Rows gate, Complex* to) {
  const PreciseRow<kDtype> sequence = precise_sequence<kDtype>(p, work);
  Complex* rows = to + work.here() * work.order.length;
  columns_forward(work.order, block_index() % work.blocks(), rows, [&](const ColumnThread& me, Complex(&w)[16], Complex(&v)[16]) {
    float x[16];
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) x[k] = sequence.input(tensor, {}, me.element(k));
    DNASM_UNROLL
    for (int k = 0; k < 16 && gate.data; ++k) x[k] *= sequence.input(gate, {}, me.element(k));
    DNASM_UNROLL
    for (int k = 0; k < 16; ++k) v[k] = x[k] * w[k];
  });
}

template <int kRow>
DNASM_DEVICE const Complex* filter_row(const Params& p, const RowOrder& order, int64_t channel, int row) {
  return static_cast<const Complex*>(p.spectrum) + channel * order.length + static_cast<int64_t>(row) * kRow;
}

template <int kRow>
DNASM_KERNEL(PreciseWide<kRow>::kThreads, PreciseWide<kRow>::blocks_per_sm(64))
precise_rows_kernel(const Params p, const PreciseLongWork work) {
  const PreciseWide<kRow> wide;
  const int64_t here = block_index() / work.order.rows;
  Complex* row = work.x + static_cast<int64_t>(block_index()) * kRow;
  const Complex* filter = filter_row<kRow>(p, work.order, (work.sequence + here) / p.batch, block_index() % work.order.rows);
  precise_convolve(wide, filter, [&](int n) { return row[n]; }, [&](int n, Complex z) { row[n] = z; });
}

// out = other (conv(x) + skip x)
template <int kDtype>
DNASM_KERNEL(WideColumns::kThreads, kColumnBlocksBack)
precise_output_kernel(const Params p, const PreciseLongWork work, const Rows other, const Rows out) {
  const PreciseRow<kDtype> sequence = precise_sequence<kDtype>(p, work);
  const float skip = sequence.skip();
  columns_inverse(work.order, block_index() % work.blocks(), work.x + work.here() * work.order.length,
                  [&](int n, Complex z) { sequence.output(out, other, skip, n, z.re); });
}

template <int kRow>
DNASM_KERNEL(PreciseWide<kRow>::kThreads, PreciseWide<kRow>::blocks_per_sm(128))
precise_rows_backward_kernel(const Params p, const PreciseLongWork work) {
  const PreciseWide<kRow> wide;
  const int row = block_index() % work.order.rows, chunk = block_index() / work.order.rows % work.chunks;
  const int channel = block_index() / work.order.rows / work.chunks;  // of this launch
  const Complex* filter = filter_row<kRow>(p, work.order, work.sequence / p.batch + channel, row);
  Complex* sums = work.partial + static_cast<int64_t>(block_index()) * kRow;
  bool first = work.first;
  for (int b = chunk; b < work.batch; b += work.chunks) {
    const int64_t at = (static_cast<int64_t>(channel) * work.batch + b) * work.order.length + static_cast<int64_t>(row) * kRow;
    Complex *x = work.x + at, *g = work.g + at, saved[16];
    precise_pair(wide, filter, p.dout_gate.data, [&](int, int m) -> Complex& { return saved[m]; }, sums, first,
                 [&](int n) { return x[n]; }, [&](int n) { return g[n]; }, [&](int n, Complex z) { x[n] = z; },
                 [&](int n, Complex z) { g[n] = z; });
    first = false;
  }
}

template <int kDtype>
DNASM_KERNEL(WideColumns::kThreads, kColumnBlocksBack) precise_input_gradient_kernel(const Params p, const PreciseLongWork work) {
  const PreciseRow<kDtype> sequence = precise_sequence<kDtype>(p, work);
  const float skip = sequence.skip();
  float skip_sum = 0;
  columns_inverse(work.order, block_index() % work.blocks(), work.g + work.here() * work.order.length,
                  [&](int n, Complex z) { skip_sum += sequence.input_gradient(skip, n, z.re); });
  sync_block();
  skip_sum = block_sum<WideColumns::kThreads>(skip_sum, reinterpret_cast<float*>(dynamic_shared()));
  if (thread_index() == 0) work.skip_sums[work.sequence * work.blocks() + block_index()] = skip_sum;
}

// The filter's columns become its spectrum, in place and divided by L; the sums' rows become columns, the first chunk's.
template <int kRow>
DNASM_KERNEL(PreciseWide<kRow>::kThreads, PreciseWide<kRow>::blocks_per_sm(64))
precise_filter_rows_kernel(Complex* spectrum, const int64_t length) {
  const PreciseWide<kRow> wide;
  Complex* row = spectrum + static_cast<int64_t>(block_index()) * kRow;
  wide.begin(0, [&](int n) { return row[n]; });
  wide.rows([&](int r, Complex(&v)[16]) { precise_store(wide, row, r, v, one_over(length)); });
}
template <int kRow>
DNASM_KERNEL(PreciseWide<kRow>::kThreads, PreciseWide<kRow>::blocks_per_sm(64))
precise_gradient_rows_kernel(const GradientWork work) {
  const PreciseWide<kRow> wide;
  const int row = block_index() % work.order.rows, here = block_index() / work.order.rows;
  Complex* sums = reinterpret_cast<Complex*>(work.partial) + here * work.chunks * work.order.length +
                  static_cast<int64_t>(row) * kRow;
  wide.inverse(
      0, [&](int r, Complex(&v)[16]) { precise_partials(wide, sums, work.chunks, work.order.length, work.scale, r, v); },
      [&](int n, Complex z) { sums[n] = z; });
}

// Rows of kRow points; the shortest plan has 16.
template <int kRow>
struct PreciseLong {
  RowOrder order;
  int64_t group;          // sequences of a launch
  int64_t channels;       // and of backward: whole channels, or part of one channel's batch
  PreciseLongWork work{};

  PreciseLong(const Params& p, bool back) {
    const int64_t length = plan_length(p.length, kPrecise);
    const int rows = static_cast<int>(length / kRow);
    order = {rows, rows > kWidestLevel ? rows / 16 : 1, length};
    work.order = order;
    group = ring_share(p.batch * p.channels, 8 * length);
    if (!back) return;
    work.batch = static_cast<int>(group < p.batch ? group : p.batch);
    channels = group / work.batch, group = channels * work.batch;
    const int64_t wanted = (528 + channels * rows - 1) / (channels * rows);
    work.chunks = static_cast<int>(wanted < work.batch ? wanted : work.batch);
  }
  size_t scratch_at(int which) const { return static_cast<size_t>(which * group * 8 * order.length); }
  size_t skip_at() const { return scratch_at(2) + static_cast<size_t>(channels * work.chunks * 8 * order.length); }
  LaunchShape columns(const Params& p, int64_t n) const {
    return {n * work.blocks(), WideColumns::kThreads, WideColumns::kSharedBytes, p.stream};
  }
  LaunchShape rows(const Params& p, int64_t n) const {
    return {n * order.rows, PreciseWide<kRow>::kThreads, PreciseWide<kRow>::kSharedBytes, p.stream};
  }
  static size_t spectrum_bytes(const Params& p) {
    return static_cast<size_t>(p.channels * 8 * plan_length(p.length, kPrecise));
  }
  static size_t forward_bytes(const Params& p) { return PreciseLong(p, false).scratch_at(1); }
  static size_t backward_bytes(const Params& p) {
    const PreciseLong plan(p, true);
    return plan.skip_at() + static_cast<size_t>(p.batch * p.channels * plan.work.blocks()) * 4;
  }

  static const char* spectrum(const Params& p) {
    const PreciseLong plan(p, false);
    const FilterStaging<PreciseLong> staging{plan.order, 0, nullptr, static_cast<Complex*>(p.spectrum), 0};
    const char* text = launch(filter_columns_kernel<PreciseLong>, plan.columns(p, p.channels), p, staging);
    return text ? text : launch(precise_filter_rows_kernel<kRow>, plan.rows(p, p.channels), staging.rows,
                                int64_t{plan.order.length});
  }
  template <int kDtype>
  static const char* forward(const Params& p) {
    PreciseLong plan(p, false);
    PreciseLongWork& work = plan.work;
    work.x = static_cast<Complex*>(p.scratch);
    const int64_t sequences = p.batch * p.channels;
    for (; work.sequence < sequences; work.sequence += plan.group) {
      const int64_t left = sequences - work.sequence, now = left < plan.group ? left : plan.group;
      const char* text = launch(precise_columns_kernel<kDtype>, plan.columns(p, now), p, work, p.u, p.in_gate, work.x);
      if (!text) text = launch(precise_rows_kernel<kRow>, plan.rows(p, now), p, work);
      if (!text) text = launch(precise_output_kernel<kDtype>, plan.columns(p, now), p, work, p.out_gate, p.y);
      if (text) return text;
    }
    return nullptr;
  }
  template <int kDtype>
  static const char* backward(const Params& p) {
    PreciseLong plan(p, true);
    PreciseLongWork work = plan.work;
    char* scratch = static_cast<char*>(p.scratch);
    work.x = reinterpret_cast<Complex*>(scratch), work.g = reinterpret_cast<Complex*>(scratch + plan.scratch_at(1));
    work.partial = reinterpret_cast<Complex*>(scratch + plan.scratch_at(2));
    work.skip_sums = reinterpret_cast<float*>(scratch + plan.skip_at());
    for (int64_t channel = 0; channel < p.channels; channel += plan.channels) {
      const int64_t left = p.channels - channel, channels = left < plan.channels ? left : plan.channels;
      for (int64_t b = 0; b < p.batch; b += plan.work.batch) {
        work.sequence = channel * p.batch + b, work.first = b == 0;
        work.batch = static_cast<int>(p.batch - b < plan.work.batch ? p.batch - b : plan.work.batch);
        const LaunchShape columns = plan.columns(p, channels * work.batch);
        const char* text = launch(precise_columns_kernel<kDtype>, columns, p, work, p.u, p.in_gate, work.x);
        if (!text) text = launch(precise_columns_kernel<kDtype>, columns, p, work, p.dy, p.out_gate, work.g);
        if (!text)
          text = launch(precise_rows_backward_kernel<kRow>, plan.rows(p, channels * work.chunks), p, work);
        if (!text && p.dout_gate.data) text = launch(precise_output_kernel<kDtype>, columns, p, work, p.dy, p.dout_gate);
        if (!text) text = launch(precise_input_gradient_kernel<kDtype>, columns, p, work);
        if (text) return text;
      }
      if (!p.dk && !p.dskip) continue;
      const GradientWork gradient{plan.order, channel, work.chunks, reinterpret_cast<float*>(work.partial),
                                  1.0f / static_cast<float>(plan.order.length), work.skip_sums,
                                  static_cast<int>(p.batch * work.blocks())};
      const char* text = nullptr;
      if (p.dk) text = launch(precise_gradient_rows_kernel<kRow>, plan.rows(p, channels), gradient);
      if (!text) text = launch(gradient_columns_kernel<PreciseLong>, plan.columns(p, channels), p, gradient);
      if (text) return text;
    }
    return nullptr;
  }
};

}  // namespace dnasm
