// The inner transforms of long sequences: one row of the last outer level, complex, for each block, in place in scratch.
#pragma once

#include "kernel.cuh"
#include "outer.cuh"

namespace dnasm {

struct InnerWork {
  SpectrumLayout layout;
  Level level;              // the outer level that the rows come from
  int rows;                 // of a sequence
  int blocks;       // of a sequence's columns under one exponent each
  bool scaled;      // whether these rows still carry those,
  int scale_shift;  // and log2 of how wide a block is
  int64_t sequence;         // the first one of this launch
  Scratch x;
};

template <class P>
struct InnerWorker {
  static_assert(P::kR1 == 16 && !P::kDirect && P::kUnits == 2);  // a pair of units: one chunk
  using R = typename P::Rows;
  static constexpr size_t kSharedBytes = P::kSharedBytes;

  Transform<P> transform;
  const InnerWork& work;
  int column, row;  // this lane's first column; this block's row
  uint32_t back;    // the outer level's turn on the way back
  const Quad* filter;

  DNASM_DEVICE InnerWorker(const Params& p, const InnerWork& w, int64_t channel, int which_row) : work(w), row(which_row) {
    const int lane = thread_index() % 32;
    transform = {lane, thread_index() / 32, dynamic_shared(), w.layout.tables(p) + lane};
    column = P::lane_column(lane) + P::unit_column(transform.first_tile());
    back = 0u - w.level.turn(row & (w.level.radix - 1));
    const Quad* row_filter = reinterpret_cast<const Quad*>(w.layout.channel(p, channel)) + static_cast<int64_t>(row) * P::kTiles * 64;
    filter = row_filter + transform.first_tile() * 64 + lane;
    if (thread_index() * 8 < P::kTiles * 64) prefetch(row_filter + thread_index() * 8);  // a line a thread
  }
  // The row's spectrum, seen by visit(i, tile), and if `back`, from there into scratch again. Returns the row's scale.
  template <class Visit>
  DNASM_DEVICE int run(const Scratch& x_rows, int64_t sequence, bool back_too, const Visit& visit) const {
    const int lane = transform.lane, g = lane / 4;
    char* at = x_rows.rows + ((sequence * work.rows + row) * P::kLength + column - 2 * g + chunk(g)) * 4;
    Quad chunks[4];
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) chunks[w] = *reinterpret_cast<const Quad*>(at + P::word_column(w) * 4);
    // Columns of a block come under the scale of their row.
    const uint32_t* exponents = x_rows.exponents + sequence * work.blocks;
    const uint32_t most = row_maximum(exponents, work.blocks);
    DNASM_UNROLL
    for (int w = 0; w < 4 && work.scaled; ++w) {
      const uint32_t e = exponents[(column + P::word_column(w)) >> work.scale_shift];
      const float scale = power_of_two(static_cast<int>(e) - static_cast<int>(most));
      const uint32_t ratio = pack_half2(scale, scale);
      DNASM_UNROLL
      for (int j = 0; j < 4; ++j) chunks[w].w[j] = mul_half2(chunks[w].w[j], ratio);
    }
    DftMatrix first{transform.table(R::kFirst), transform.table(R::kFirst + 1), {}};
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) first.neg_im.w[w] = neg_half2(first.im.w[w]);
    DNASM_UNROLL
    for (int k = 0; k < 2; ++k) {
      Tile x = product<false>(first, join_rows(chunks, k)).rounded();
      const int table = R::kOuterForward + 2 * (transform.first_tile() + k);
      if (P::kR2 == 1) multiply<false>(x, transform.table(table), transform.table(table + 1));
      transform.store_first(k, x);
    }
    transform.sync_team();
    if constexpr (P::kR2 > 1) transform.template middle<false>(), transform.sync_team();
    transform.inner(back_too, visit);
    if (!back_too) return exponent_of(most);
    if constexpr (P::kR2 > 1) transform.sync_team(), transform.template middle<true>();
    transform.sync_team();
    last(at);
    return exponent_of(most);
  }

  // Stage 1's adjoint, times the outer level's turns e(-n (s + 1/4 - R/4) / L).
  DNASM_DEVICE void last(char* at) const {
    const Quad cos = transform.table(R::kFirst + 2), sin = transform.table(R::kFirst + 3);
    const Complex next = turn_by(back, P::kStride1), eight = turn_by(back, 8 * P::kStride1), side = turn_by(back, 1);
    Quad chunks[4];
    DNASM_UNROLL
    for (int k = 0; k < 2; ++k) {
      uint32_t re[4], im[4];
      transform.load_last(k, re, im);
      float z_re[2][4] = {}, z_im[2][4] = {};
      DNASM_UNROLL
      for (int nt = 0; nt < 2; ++nt) {
        mma_16816(z_re[nt], re, cos.w[2 * nt], cos.w[2 * nt + 1]);
        mma_16816(z_im[nt], im, cos.w[2 * nt], cos.w[2 * nt + 1]);
        mma_16816(z_re[nt], im, sin.w[2 * nt], sin.w[2 * nt + 1]);
        mma_16816(z_im[nt], re, neg_half2(sin.w[2 * nt]), neg_half2(sin.w[2 * nt + 1]));
      }
      Complex rows[4];
      rows[0] = turn_by(back, column + P::unit_column(k));
      rows[1] = rows[0] * next, rows[2] = rows[0] * eight, rows[3] = rows[1] * eight;
      DNASM_UNROLL
      for (int w = 0; w < 4; ++w) {  // row 2 q + w % 2 + 8 (w / 2), columns 2 g and 2 g + 1
        const int nt = w / 2, c = w % 2;
        const Complex a = Complex{z_re[nt][c], z_im[nt][c]} * rows[w];
        const Complex b = Complex{z_re[nt][2 + c], z_im[nt][2 + c]} * (rows[w] * side);
        chunks[w].w[2 * k] = pack_half2(a.re, b.re), chunks[w].w[2 * k + 1] = pack_half2(a.im, b.im);
      }
    }
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) *reinterpret_cast<Quad*>(at + P::word_column(w) * 4) = chunks[w];
  }
  template <bool kConjugate>
  DNASM_DEVICE void multiply_filter(int unit, Tile& x) const {
    multiply<kConjugate>(x, load_table(filter + unit * 64), load_table(filter + unit * 64 + 32));
  }
};

// Pass B: each row's convolution with the filter's. 80 registers: more warps are worth the few words that go to memory.
template <class P>
DNASM_KERNEL(P::kThreads, 3) inner_forward_kernel(const Params p, const InnerWork work) {
  const int64_t sequence = block_index() / work.rows;
  const InnerWorker<P> me(p, work, (work.sequence + sequence) / p.batch, block_index() % work.rows);
  me.run(work.x, sequence, true, [&](int i, Tile& x) { me.template multiply_filter<false>(i, x); });
}

// Pass B of backward: x's spectrum X, back through K where the output's gate wants it; g's spectrum G, the filter's
// gradient's sum of G conj X over sequences, and back through conj K. A block takes one row of a channel's sequences.
struct InnerBackWork {
  InnerWork inner;
  Scratch g;
  int batch, chunks;  // sequences of a channel in this launch; blocks that share them
  float* partial;     // [channel][chunk][row], see FilterGradient
  bool first;         // the channel's first launch
};

template <class P>
DNASM_KERNEL(P::kThreads, P::kBlocksPerSm) inner_backward_kernel(const Params p, const InnerBackWork work) {
  using B = Backward<P>;
  const int row = block_index() % work.inner.rows, chunk = block_index() / work.inner.rows % work.chunks;
  const int channel = block_index() / work.inner.rows / work.chunks;  // of this launch
  const InnerWorker<P> me(p, work.inner, work.inner.sequence / p.batch + channel, row);
  const int lane = me.transform.lane, first_tile = me.transform.first_tile();
  char* shared = dynamic_shared() + InnerWorker<P>::kSharedBytes;
  FilterGradient<P> dk;
  dk.saved = reinterpret_cast<Quad*>(shared) + first_tile * 64 + lane;
  dk.sums = reinterpret_cast<Quad*>(shared + 4 * P::kLength) + first_tile * 128 + lane;
  dk.out = reinterpret_cast<Quad*>(work.partial + block_index() * B::kPartialFloats) + first_tile * 128 + lane;
  for (int j = 0; !work.first && j < 4 * P::kUnits; ++j) dk.sums[32 * j] = dk.out[32 * j];
  bool first = work.first;
  for (int b = chunk; b < work.batch; b += work.chunks) {
    const int64_t sequence = static_cast<int64_t>(channel) * work.batch + b;
    const bool gate_gradient = p.dout_gate.data;
    const int x_exponent = me.run(work.inner.x, sequence, gate_gradient, [&](int i, Tile& x) {
      dk.save(i, x);
      if (gate_gradient) me.template multiply_filter<false>(i, x);
    });
    const int g_exponent = exponent_of(row_maximum(work.g.exponents + sequence * work.inner.blocks, work.inner.blocks));
    const float factor = power_of_two(g_exponent + x_exponent);
    sync_block();  // x has been read
    me.run(work.g, sequence, true, [&](int i, Tile& g) {
      dk.accumulate(i, g, factor, first);
      me.template multiply_filter<true>(i, g);
    });
    sync_block();  // and g
    first = false;
  }
  dk.finish();
}

}  // namespace dnasm
