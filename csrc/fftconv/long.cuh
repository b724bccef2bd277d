// Host code of plans past one block: how sequences are cut into groups that one scratch serves in turn.
#pragma once

#include "inner.cuh"
#include "result.cuh"
#include "schedule.cuh"
#include "wide_outer.cuh"

namespace dnasm {

template <class P>
DNASM_KERNEL(128, 1) long_table_kernel(const Params p, const Level level) {
  const int table = block_index() * 4 + thread_index() / 32, lane = thread_index() % 32, of_level = table - P::Rows::kRows;
  Quad* tables = static_cast<Quad*>(p.spectrum);
  if (of_level < 0) return write_table_row<P>(tables, table, lane);
  const int of_row = of_level - level.table_rows(), row = of_row / RowTables::kRows, rows = level.above * level.radix;
  if (row >= rows) return;
  const int s = row / level.radix + level.above * level.frequency(row % level.radix);
  const auto value = [&](int w, int h) {
    return (of_row < 0 ? level.entry_of(of_level, w, h, lane) : row_entry<P>(rows, s, of_row % RowTables::kRows, w, h, lane)).value();
  };
  Quad quad;
  for (int w = 0; w < 4; ++w) quad.w[w] = pack_half2(value(w, 0), value(w, 1));
  tables[table * 32 + lane] = quad;
}

// The shortest long plan has 16 rows.
inline int64_t long_length(const Params& p) {
  const int64_t length = plan_length(p.length, p.precision);
  return length > 65536 ? length : 65536;
}

// Everything a launch needs to know of a long plan with inner transforms of plan P.
template <class P>
struct Long {
  int64_t length, group, channels_at_once;
  Level first, level;  // the outermost level and the last one, which may be the same
  bool two;
  SpectrumLayout layout;
  size_t bounds_at, staging_at, spectrum_size;
  int spectrum_top;

  explicit Long(const Params& p) : length(length_of(p)) {
    const int rows = static_cast<int>(length / P::kLength);
    two = rows > kWidestLevel;
    first = make_level(length, two ? 16 : rows, 1);
    level = two ? make_level(length / 16, rows / 16, 16) : first;
    layout = spectrum_layout<P>(p);
    layout.table_bytes = table_rows() * 512;
    layout.channel_bytes = 4 * length;
    int bits = 0;
    while (length >> bits > 1) ++bits;
    spectrum_top = 11 - (bits + 1) / 2;  // no product of two spectra passes fp16's largest number
    channels_at_once = ring_share(p.channels, 8 * length);
    bounds_at = static_cast<size_t>(layout.table_bytes + layout.exponent_bytes + p.channels * layout.channel_bytes);
    staging_at = round_up(bounds_at + static_cast<size_t>(channels_at_once) * 4 * staging(nullptr).blocks());
    spectrum_size = staging_at + static_cast<size_t>(channels_at_once * 8 * length);
    group = ring_share(p.batch * p.channels, 2 * length);  // twice the ring: 5 % faster than one
  }
  static int64_t length_of(const Params& p) {  // the outer level has at least 16 rows
    const int64_t plan = plan_length(p.length, kFast);
    return plan < 16 * P::kLength ? 16 * P::kLength : plan;
  }
  FilterStaging<P> staging(const Params* p) const {
    FilterStaging<P> work{order(), 0, nullptr, nullptr, spectrum_top};
    if (p) {
      work.bounds = reinterpret_cast<float*>(static_cast<char*>(p->spectrum) + bounds_at);
      work.rows = reinterpret_cast<Complex*>(static_cast<char*>(p->spectrum) + staging_at);
    }
    return work;
  }
  int table_rows() const { return P::Rows::kRows + level.table_rows() + rows() * RowTables::kRows; }
  int rows() const { return static_cast<int>(length / P::kLength); }
  RowOrder order() const { return {rows(), two ? level.radix : 1, length}; }
  // Of two levels, the first has no other tables than every plan.
  OuterWork outer(const Params& p, const Level& of, const Scratch& scratch) const {
    const bool plain = two && of.above == 1;
    return {of, static_cast<const Quad*>(p.spectrum) + (plain ? P::Rows::kFirst : P::Rows::kRows) * 32, 0, scratch};
  }
  InnerWork inner(const Params& p, const Scratch& x) const {
    const Quad* tables = static_cast<const Quad*>(p.spectrum) + (P::Rows::kRows + level.table_rows()) * 32;
    return {layout, tables, rows(), first.blocks(), !two, first.tile_shift + 4, 0, x};
  }
  // The second level's pass over a group in scratch, one way or the other, where there is one.
  const char* middle(const Params& p, const Scratch& scratch, int64_t sequences, bool back) const {
    if (!two) return nullptr;
    const MiddleWork work{outer(p, level, scratch), first, scratch.exponents, first.tile_shift + 4};
    const LaunchShape shape{sequences * first.radix * level.blocks(), OuterPlan::kThreads, level.shared_bytes(), p.stream};
    return back ? launch(middle_inverse_kernel<OuterPlan::kThreads>, shape, work)
                : launch(middle_forward_kernel<OuterPlan::kThreads>, shape, work);
  }
  Scratch scratch(const Params& p, size_t at) const {  // of a group, from byte `at` on
    char* rows = static_cast<char*>(p.scratch) + at;
    return {rows, reinterpret_cast<uint32_t*>(rows + group * 4 * length)};
  }
  size_t scratch_bytes() const { return round_up(static_cast<size_t>(group) * (4 * static_cast<size_t>(length + first.blocks()))); }
  // What rounded matrices shorten (measured as Plan::kGain is); there is less of it than in one block, for each row rounds
  // matrices of its own.
  static constexpr float kGain = 1 - 0.3e-4f;
  // Where radix 2 or 8 is among the stages, spectra are shorter by sqrt(2) than unitary ones.
  float gradient_scale() const { return (level.second == 2 || level.second == 8 ? 2.0f : 1.0f) / kGain; }
  static bool full_rows(const Params& p) { return p.length == length_of(p) && aligned_rows(p, 4); }

  static size_t spectrum_bytes(const Params& p) { return Long(p).spectrum_size; }
  static size_t forward_bytes(const Params& p) { return Long(p).scratch_bytes(); }

  static const char* spectrum(const Params& p) {
    using W = PlanWide<P>;
    const Long plan(p);
    const LaunchShape tables{(plan.table_rows() + 3) / 4, 128, 0, p.stream};
    if (const char* text = launch(long_table_kernel<P>, tables, p, plan.level)) return text;
    FilterStaging<P> work = plan.staging(&p);
    for (; work.channel < p.channels; work.channel += plan.channels_at_once) {
      const int64_t left = p.channels - work.channel, now = left < plan.channels_at_once ? left : plan.channels_at_once;
      const LaunchShape columns{now * work.blocks(), WideColumns::kThreads, WideColumns::kSharedBytes, p.stream};
      if (const char* text = launch(filter_columns_kernel<P>, columns, p, work)) return text;
      const LaunchShape inner{now * plan.rows(), W::kThreads, W::kSharedBytes, p.stream};
      if (const char* text = launch(filter_rows_kernel<P>, inner, p, work, plan.layout)) return text;
    }
    return nullptr;
  }

  LaunchShape outside(const Params& p, int64_t sequences) const {
    return {sequences * first.blocks(), OuterPlan::kThreads, first.shared_bytes(), p.stream};
  }

  template <int kDtype, bool kFull, bool kGated>
  static const char* forward(const Params& p) {
    const Long plan(p);
    const Scratch scratch = plan.scratch(p, 0);
    OuterWork outer = plan.outer(p, plan.first, scratch);
    InnerWork inner = plan.inner(p, scratch);
    const int64_t sequences = p.batch * p.channels;
    for (int64_t first = 0; first < sequences; first += plan.group) {
      const int64_t now = sequences - first < plan.group ? sequences - first : plan.group;
      outer.sequence = inner.sequence = first;
      const LaunchShape outside = plan.outside(p, now);
      const bool two = p.batch % 2 == 0 && now % 2 == 0;  // neighbours of one channel, side by side in a block
      const LaunchShape inside{(two ? now / 2 : now) * plan.rows(), P::kThreads,
                               static_cast<size_t>((two ? 2 : 1) * P::kSequenceBytes), p.stream};
      const char* text = launch(outer_forward_kernel<kDtype, kFull, kGated>, outside, p, outer, p.u, p.in_gate);
      if (!text) text = plan.middle(p, scratch, now, false);
      if (!text) text = launch(two ? inner_forward_kernel<P, 2> : inner_forward_kernel<P, 1>, inside, p, inner);
      if (!text) text = plan.middle(p, scratch, now, true);
      const ResultWork result{outer, plan.layout, 1 / kGain, nullptr};
      if (!text) text = launch(output_kernel<kDtype, kFull, kGated>, outside, p, result);
      if (text) return text;
    }
    return nullptr;
  }

  // Into how many chunks to cut a batch, so that blocks times chunks are done in the fewest rounds of one sequence each.
  // The device's blocks are a fixed number here, since sums depend on it; a chunk costs about a sequence more.
  static int fewest_rounds(int64_t blocks, int64_t batch) {
    int64_t best = 1, least = INT64_MAX;
    for (int64_t chunks = 1; chunks <= batch; ++chunks) {
      const int64_t rounds = (blocks * chunks + 263) / 264 * ((batch + chunks - 1) / chunks + 1);
      if (rounds < least) least = rounds, best = chunks;
    }
    return static_cast<int>(best);
  }
  // Backward's groups: whole channels, or part of one channel's batch.
  struct BackwardPlan {
    int64_t channels, batch;  // of a group
    int chunks;               // blocks that share a row of a channel's sequences
    size_t g_at, partial_at, skip_at, bytes;
    BackwardPlan(const Params& p, Long& plan) {
      batch = plan.group < p.batch ? plan.group : p.batch;
      channels = plan.group / batch;
      plan.group = channels * batch;
      chunks = fewest_rounds(channels * plan.rows(), batch);
      g_at = plan.scratch_bytes(), partial_at = 2 * g_at;
      skip_at = partial_at + static_cast<size_t>(channels * chunks * 8 * plan.length);
      bytes = skip_at + static_cast<size_t>(p.batch * p.channels * plan.first.blocks()) * 4;
    }
  };
  static size_t backward_bytes(const Params& p) {
    Long plan(p);
    return BackwardPlan(p, plan).bytes;
  }

  template <int kDtype, bool kFull, bool kGated>
  static const char* backward(const Params& p) {
    Long plan(p);
    const BackwardPlan back(p, plan);
    const Scratch x = plan.scratch(p, 0), g = plan.scratch(p, back.g_at);
    float* partial = reinterpret_cast<float*>(static_cast<char*>(p.scratch) + back.partial_at);
    float* skip_sums = reinterpret_cast<float*>(static_cast<char*>(p.scratch) + back.skip_at);
    for (int64_t channel = 0; channel < p.channels; channel += back.channels) {
      const int64_t channels = p.channels - channel < back.channels ? p.channels - channel : back.channels;
      for (int64_t b = 0; b < p.batch; b += back.batch) {
        const int64_t batch = p.batch - b < back.batch ? p.batch - b : back.batch;
        OuterWork of_x = plan.outer(p, plan.first, x), of_g = plan.outer(p, plan.first, g);
        of_x.sequence = of_g.sequence = channel * p.batch + b;
        InnerBackWork inner{plan.inner(p, x), g, static_cast<int>(batch), back.chunks, partial, b == 0};
        inner.inner.sequence = of_x.sequence;
        const LaunchShape outside = plan.outside(p, channels * batch);
        const LaunchShape inside{channels * back.chunks * plan.rows(), P::kThreads,
                                 InnerBackWork::shared_bytes<P>(), p.stream};
        const char* text = launch(outer_forward_kernel<kDtype, kFull, kGated>, outside, p, of_x, p.u, p.in_gate);
        if (!text) text = launch(outer_forward_kernel<kDtype, kFull, kGated>, outside, p, of_g, p.dy, p.out_gate);
        if (!text) text = plan.middle(p, x, channels * batch, false);
        if (!text) text = plan.middle(p, g, channels * batch, false);
        const bool gate = p.dout_gate.data;
        if (!text) text = launch(gate ? inner_backward_kernel<P, true> : inner_backward_kernel<P, false>, inside, p, inner);
        if (!text && gate) text = plan.middle(p, x, channels * batch, true);
        if (!text) text = plan.middle(p, g, channels * batch, true);
        const ResultWork on_x{of_x, plan.layout, 1 / kGain, nullptr}, on_g{of_g, plan.layout, 1 / kGain, skip_sums};
        if (!text) text = launch(gradients_kernel<kDtype, kFull, kGated>, outside, p, on_x, on_g);
        if (text) return text;
      }
      if (!p.dk && !p.dskip) continue;
      const int64_t skip_partials = p.batch * plan.first.blocks();
      const GradientWork work{plan.order(), channel, back.chunks, partial, plan.gradient_scale(),
                              skip_sums, static_cast<int>(skip_partials)};
      using W = PlanWide<P>;
      const LaunchShape rows{channels * plan.rows(), W::kThreads, W::kSharedBytes, p.stream};
      const LaunchShape columns{channels * plan.staging(nullptr).blocks(), WideColumns::kThreads, WideColumns::kSharedBytes,
                                p.stream};
      const char* text = p.dk ? launch(gradient_rows_kernel<P>, rows, work) : nullptr;
      if (!text) text = launch(gradient_columns_kernel<P>, columns, p, work);
      if (text) return text;
    }
    return nullptr;
  }
};

}  // namespace dnasm
