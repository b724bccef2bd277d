// The inner transforms of long sequences: one row of the last outer level, complex, for each block, in place in scratch.
#pragma once

#include "kernel.cuh"
#include "outer.cuh"

namespace dnasm {

struct InnerWork {
  SpectrumLayout layout;
  const Quad* tables;  // of each row, see RowTables
  int rows;            // of a sequence
  int blocks;          // of a sequence's columns under one exponent each
  bool scaled;         // whether these rows still carry those,
  int scale_shift;     // and log2 of how wide a block is
  int64_t sequence;    // the first one of this launch
  Scratch x;
};

// One row of a sequence in scratch.
struct InnerRow {
  char* at;  // this lane's first chunk
  const uint32_t* exponents;
};

// kShared: the row's tables stand in shared memory from byte kTablesAt on, for blocks that use them again and again.
template <class P, bool kShared = false>
struct InnerWorker {
  static_assert(P::kR1 == 16 && P::kR2 == 1 && !P::kDirect && P::kUnits == 2);  // a pair of units: one chunk
  using R = typename P::Rows;
  static constexpr int kRowBytes = P::kSequenceBytes;  // of shared memory
  static constexpr int kTablesAt = 2 * kRowBytes + 8 * P::kLength;

  Transform<P> transform;
  const InnerWork& work;
  int column, row;     // this lane's first column; this block's row
  const Quad* own;     // tables of this row, already at this lane
  const Quad* filter;  // and the filter's row, at this warp's first tile

  DNASM_DEVICE InnerWorker(const Params& p, const InnerWork& w, int64_t channel, int which_row) : work(w), row(which_row) {
    const int lane = thread_index() % 32;
    transform = {lane, thread_index() / 32, dynamic_shared(), w.layout.tables(p) + lane};
    column = P::lane_column(lane) + P::unit_column(transform.first_tile());
    const Quad* row_tables = w.tables + row * (32 * RowTables::kRows);
    const Quad* row_filter = reinterpret_cast<const Quad*>(w.layout.channel(p, channel)) + static_cast<int64_t>(row) * P::kTiles * 64;
    own = row_tables + lane, filter = row_filter + transform.first_tile() * 64 + lane;
    // Both into the L2 cache, a line a thread.
    constexpr int kFilterLines = P::kTiles * 8, kTableLines = RowTables::kRows * 4;
    static_assert(kFilterLines + kTableLines <= P::kThreads);
    const int line = thread_index() - kFilterLines;
    if constexpr (kShared) {
      Quad* shared = reinterpret_cast<Quad*>(dynamic_shared() + kTablesAt);
      for (int i = thread_index(); i < 32 * RowTables::kRows; i += P::kThreads) shared[i] = row_tables[i];
      own = shared + lane;
      if (line < 0) prefetch(row_filter + thread_index() * 8);
    } else if (line < kTableLines) prefetch(line < 0 ? row_filter + thread_index() * 8 : row_tables + line * 8);
  }
  DNASM_DEVICE InnerRow row_of(const Scratch& x, int64_t sequence) const {
    const int g = transform.lane / 4;
    return {x.rows + ((sequence * work.rows + row) * P::kLength + column - 2 * g + chunk(g)) * 4, x.exponents + sequence * work.blocks};
  }
  // Calls a row into the L2 cache, a line a thread.
  DNASM_DEVICE void expect(const Scratch& x, int64_t sequence) const {
    static_assert(P::kThreads * 32 >= P::kLength);
    if (thread_index() * 32 < P::kLength)
      prefetch(x.rows + ((sequence * work.rows + row) * P::kLength + thread_index() * 32) * 4);
  }
  DNASM_DEVICE Quad own_table(int table) const { return kShared ? own[32 * table] : load_table(own + 32 * table); }
  DNASM_DEVICE DftMatrix own_matrix(int table) const { return {own_table(table), own_table(table + 1), own_table(table + 2)}; }

  // Rows of kRows sequences side by side: tables are read once, and a warp has more to do while it waits. visit(k, tiles,
  // exponents) sees tile k of each one's spectrum; rows from kBack on go back from there into scratch.
  template <int kRows, int kBack, class Visit>
  DNASM_DEVICE void run(const InnerRow (&rows)[kRows], const Visit& visit) const {
    Quad chunks[kRows][4];
    int exponents[kRows];
    DNASM_UNROLL
    for (int i = 0; i < 4 * kRows; ++i) chunks[i / 4][i % 4] = *reinterpret_cast<const Quad*>(rows[i / 4].at + P::word_column(i % 4) * 4);
    DNASM_UNROLL
    for (int r = 0; r < kRows; ++r) exponents[r] = rescale(rows[r].exponents, chunks[r]);
    DftMatrix first{own_table(RowTables::kFirst), own_table(RowTables::kFirst + 1), {}};
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) first.neg_im.w[w] = neg_half2(first.im.w[w]);
    DNASM_UNROLL
    for (int k = 0; k < 2; ++k) {
      const int table = R::kOuterForward + 2 * (transform.first_tile() + k);
      const Quad re = transform.table(table), im = transform.table(table + 1);
      DNASM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        Tile x = product<false>(first, join_rows(chunks[r], k)).rounded();
        multiply<false>(x, re, im);
        stage(r).store_first(k, x);
      }
    }
    sync_block();
    Tile x[2][kRows];
    char* at[2];
    DNASM_UNROLL
    for (int k = 0; k < 2; ++k) {
      at[k] = transform.sequence + P::tile_bytes(transform.first_tile() + k);
      DNASM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        transform.load_plane(x[k][r].re, at[k] + r * kRowBytes, transform.lane);
        transform.load_plane(x[k][r].im, at[k] + r * kRowBytes + 512, transform.lane);
      }
      at[k] += transform.lane / 4 * 16 + transform.lane % 4 * 4;
    }
    sync_warp();  // every lane has read what another one overwrites
    there(x);
    DNASM_UNROLL
    for (int k = 0; k < 2; ++k) visit(k, x[k], exponents);
    back<kRows, kBack>(x, at);
    sync_block();
    DNASM_UNROLL
    for (int r = kBack; r < kRows; ++r) last(stage(r), rows[r].at);
  }
  DNASM_DEVICE Transform<P> stage(int r) const {
    Transform<P> t = transform;
    t.sequence += r * kRowBytes;
    return t;
  }
  // Columns of a block come under the scale of their row, whose exponent this is.
  DNASM_DEVICE int rescale(const uint32_t* exponents, Quad (&chunks)[4]) const {
    const uint32_t most = row_maximum(exponents, work.blocks);
    DNASM_UNROLL
    for (int w = 0; w < 4 && work.scaled; ++w) {
      const uint32_t e = exponents[(column + P::word_column(w)) >> work.scale_shift];
      const float scale = power_of_two(static_cast<int>(e) - static_cast<int>(most));
      const uint32_t ratio = pack_half2(scale, scale);
      DNASM_UNROLL
      for (int j = 0; j < 4; ++j) chunks[w].w[j] = mul_half2(chunks[w].w[j], ratio);
    }
    return exponent_of(most);
  }
  // The inner stages, with this row's matrices: see Transform::inner.
  template <int kRows>
  DNASM_DEVICE void there(Tile (&x)[2][kRows]) const {
    const DftMatrix d = own_matrix(RowTables::kForward);
    const Quad re = own_table(RowTables::kInner), im = own_table(RowTables::kInner + 1);
    DNASM_UNROLL
    for (int i = 0; i < 2 * kRows; ++i) {
      dft16<true, false>(x[i / kRows][i % kRows], d);
      multiply<false>(x[i / kRows][i % kRows], re, im);
    }
    const DftMatrix right = transform.dft_matrix(R::kDftRight);
    DNASM_UNROLL
    for (int i = 0; i < 2 * kRows; ++i) dft16<false, false>(x[i / kRows][i % kRows], right);
  }
  template <int kRows, int kBack>
  DNASM_DEVICE void back(Tile (&x)[2][kRows], char* const (&at)[2]) const {
    {
      const DftMatrix d = transform.dft_matrix();
      const Quad re = own_table(RowTables::kInnerBack), im = own_table(RowTables::kInnerBack + 1);
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) {
        DNASM_UNROLL
        for (int r = kBack; r < kRows; ++r) dft16<true, true>(x[k][r], d), multiply<true>(x[k][r], re, im);
      }
    }
    const DftMatrix d = own_matrix(RowTables::kBack);
    DNASM_UNROLL
    for (int k = 0; k < 2; ++k) {
      DNASM_UNROLL
      for (int r = kBack; r < kRows; ++r) dft16<true, true>(x[k][r], d);
    }
    DNASM_UNROLL
    for (int k = 0; k < 2; ++k) {
      const int table = R::kOuterInverse + 2 * (transform.first_tile() + k);
      const Quad re = transform.table(table), im = transform.table(table + 1);
      DNASM_UNROLL
      for (int r = kBack; r < kRows; ++r) {
        multiply<true>(x[k][r], re, im);
        DNASM_UNROLL
        for (int w = 0; w < 4; ++w) {
          char* to = at[k] + r * kRowBytes + w % 2 * 256 + w / 2 * 128;
          store_word(to, x[k][r].re[w]), store_word(to + 512, x[k][r].im[w]);
        }
      }
    }
  }
  // Stage 1's adjoint.
  DNASM_DEVICE void last(const Transform<P>& of, char* at) const {
    const Quad cos = own_table(RowTables::kFirst + 2), sin = own_table(RowTables::kFirst + 3);
    Quad chunks[4];
    DNASM_UNROLL
    for (int k = 0; k < 2; ++k) {
      uint32_t re[4], im[4];
      of.load_last(k, re, im);
      float z_re[2][4] = {}, z_im[2][4] = {};
      DNASM_UNROLL
      for (int nt = 0; nt < 2; ++nt) {
        mma_16816(z_re[nt], re, cos.w[2 * nt], cos.w[2 * nt + 1]);
        mma_16816(z_im[nt], im, cos.w[2 * nt], cos.w[2 * nt + 1]);
        mma_16816(z_re[nt], im, sin.w[2 * nt], sin.w[2 * nt + 1]);
        mma_16816(z_im[nt], re, neg_half2(sin.w[2 * nt]), neg_half2(sin.w[2 * nt + 1]));
      }
      DNASM_UNROLL
      for (int w = 0; w < 4; ++w) {  // row 2 q + w % 2 + 8 (w / 2), columns 2 g and 2 g + 1
        const int nt = w / 2, c = w % 2;
        chunks[w].w[2 * k] = pack_half2(z_re[nt][c], z_re[nt][2 + c]);
        chunks[w].w[2 * k + 1] = pack_half2(z_im[nt][c], z_im[nt][2 + c]);
      }
    }
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) *reinterpret_cast<Quad*>(at + P::word_column(w) * 4) = chunks[w];
  }
  DNASM_DEVICE Quad filter_words(int k, int part) const { return load_table(filter + k * 64 + part * 32); }
};

// Pass B: each row's convolution with the filter's. A block takes rows of kRows neighbours of a channel's batch. A single
// one: 80 registers, for more warps are worth the few words that go to memory.
template <class P, int kRows>
DNASM_KERNEL(P::kThreads, kRows == 1 ? 3 : 2) inner_forward_kernel(const Params p, const InnerWork work) {
  const uint32_t block = static_cast<uint32_t>(block_index()), group = block / static_cast<uint32_t>(work.rows);
  const uint32_t row = block - group * static_cast<uint32_t>(work.rows), sequence = group * kRows;
  const InnerWorker<P> me(p, work, (static_cast<uint32_t>(work.sequence) + sequence) / static_cast<uint32_t>(p.batch), row);
  InnerRow rows[kRows];
  DNASM_UNROLL
  for (int r = 0; r < kRows; ++r) rows[r] = me.row_of(work.x, sequence + r);
  me.template run<kRows, 0>(rows, [&](int k, Tile (&x)[kRows], const int (&)[kRows]) {
    const Quad re = me.filter_words(k, 0), im = me.filter_words(k, 1);
    DNASM_UNROLL
    for (int r = 0; r < kRows; ++r) multiply<false>(x[r], re, im);
  });
}

// Pass B of backward: x's spectrum X, back through K where the output's gate wants it, and beside it g's spectrum G, back
// through conj K, with the filter's gradient's sum of G conj X over sequences. A block takes one row of a channel's sequences.
struct InnerBackWork {
  InnerWork inner;
  Scratch g;
  int batch, chunks;  // sequences of a channel in this launch; blocks that share them
  float* partial;     // [channel][chunk][row], see FilterGradient
  bool first;         // the channel's first launch
  template <class P>
  static constexpr size_t shared_bytes() {
    return 2 * P::kSequenceBytes + 8 * P::kLength + 512 * RowTables::kRows;
  }
};

template <class P, bool kGateGradient>
DNASM_KERNEL(P::kThreads, P::kBlocksPerSm) inner_backward_kernel(const Params p, const InnerBackWork work) {
  using Gradient = FilterGradient<P>;
  const int row = block_index() % work.inner.rows, chunk = block_index() / work.inner.rows % work.chunks;
  const int channel = block_index() / work.inner.rows / work.chunks;  // of this launch
  const InnerWorker<P, true> me(p, work.inner, work.inner.sequence / p.batch + channel, row);
  const int lane = me.transform.lane, first_tile = me.transform.first_tile();
  Quad* sums = reinterpret_cast<Quad*>(dynamic_shared() + 2 * P::kSequenceBytes) + first_tile * 128 + lane;
  Quad* out = reinterpret_cast<Quad*>(work.partial + block_index() * Backward<P>::kPartialFloats) + first_tile * 128 + lane;
  sync_block();  // the tables are there
  for (int j = 0; !work.first && j < 4 * P::kUnits; ++j) sums[32 * j] = out[32 * j];
  for (int b = chunk; b < work.batch; b += work.chunks) {
    const int64_t sequence = static_cast<int64_t>(channel) * work.batch + b;
    const InnerRow rows[2] = {me.row_of(work.inner.x, sequence), me.row_of(work.g, sequence)};
    const bool fresh = work.first && b == chunk, done = b + work.chunks >= work.batch;
    if (!done) me.expect(work.inner.x, sequence + work.chunks), me.expect(work.g, sequence + work.chunks);
    me.template run<2, kGateGradient ? 0 : 1>(rows, [&](int k, Tile (&x)[2], const int (&exponents)[2]) {
      float s[16];
      DNASM_UNROLL
      for (int j = 0; j < 16; ++j) s[j] = fresh ? 0.0f : bits_float(sums[k * 128 + j / 4 * 32].w[j % 4]);
      Gradient::add(s, x[0], x[1], power_of_two(exponents[0] + exponents[1]));
      if (done) Gradient::write(out + k * 128, s);
      else Gradient::write(sums + k * 128, s);
      const Quad re = me.filter_words(k, 0), im = me.filter_words(k, 1);
      if (kGateGradient) multiply<false>(x[0], re, im);
      multiply<true>(x[1], re, im);
    });
    sync_block();  // all rows have been read
  }
}

}  // namespace dnasm
