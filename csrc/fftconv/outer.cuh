// What stands outside one block: transforms of length L = R S by a right-angle transform of R rows down every column.
//
// Element n = n1 S + r, frequency m = s + R m': row s holds z_s[r] = sum_n1 x[n1 S + r] e(n1 (s + 1/4) / R), and
// X_m = sum_r z_s[r] e(r (m' + (s + 1/4) / R) / S). So the next level, or the inner transform of one block, is a transform
// with (s + 1/4) / R for its quarter: that stands in its matrices, and nothing is turned in between. R = 16 Rb: first 16 rows
// n1 = n1' Rb + n2 at each n2; then, through shared memory, Rb rows n2 at each m1, whose matrix e(n2 (s + 1/4) / R),
// s = m1 + 16 m2, has the twiddle in it. Row m1 Rb + m2 of scratch holds s.
//
// A block takes all rows of some columns: 8,192 complex numbers, four units of 16 rows by 16 columns for each warp, two of
// them side by side. Scratch holds rows in fp16, of every 32 columns sixteen bytes each (chunks) for columns 2 g, 2 g + 1,
// 16 + 2 g, 17 + 2 g: re, re, im, im, re, re, im, im. Those are one lane's columns in two units of the inner transform,
// and so ordered that a lane of pass A writes whole ones: chunk g stands at column chunk(g).
#pragma once

#include "io.cuh"
#include "wide.cuh"

namespace dnasm {

// What gather_row asks of a plan.
struct OuterPlan {
  static constexpr int kWarps = 8, kThreads = 256, kTeam = 8, kUnits = 4, kRows = 1, kElements = kThreads * 32;
  static constexpr bool kParked = false, kDirect = false;
  DNASM_SHARED_CODE static int row_of(int) { return 0; }
};

DNASM_SHARED_CODE int chunk(int g) { return (g & 1) << 4 | g >> 1 << 2; }

struct Level {
  int radix, second, columns;  // R = 16 second, S
  int second_shift;            // log2 of `second`
  int tile_shift;              // log2 of the 16-column tiles of a block
  int blocks_shift;            // log2 of the blocks that take a sequence's columns
  int above;                   // rows of the level above: each has its own tables, for its own quarter; or 1
  DNASM_SHARED_CODE int block_columns() const { return 16 << tile_shift; }
  DNASM_SHARED_CODE int blocks() const { return 1 << blocks_shift; }
  DNASM_SHARED_CODE int frequency(int row) const { return (row >> second_shift) + 16 * (row & (second - 1)); }
  // Shared memory: rows 16 bytes apart modulo 128, whether they are neighbours or `second` apart; re, then im.
  DNASM_SHARED_CODE int row_at(int row) const {
    return row * (4 * block_columns() + 16) + (row >> second_shift) * 16;
  }
  DNASM_SHARED_CODE int maxima_at() const { return second == 1 ? 0 : row_at(radix); }
  DNASM_SHARED_CODE size_t shared_bytes() const { return static_cast<size_t>(maxima_at()) + 64; }

  // For each row above: stage 1 there and back (4 rows of tables), and for each 16 rows the second stage: re, im, -im and
  // the same for the way back, transposed.
  DNASM_SHARED_CODE int row_tables() const { return 4 + (second == 1 ? 0 : radix / 16 * 6); }
  DNASM_SHARED_CODE int table_rows() const { return above * row_tables(); }
  DNASM_DEVICE Entry entry_of(int table, int w, int h, int lane) const {
    const int s0 = table / row_tables(), row = table % row_tables() - 4;
    if (row < 0) return first_entry(above, s0, row + 4, w, h, lane);
    const int i = row / 6 * 16 + lane / 4 + 8 * (w % 2), j = row / 6 * 16 + lane % 4 * 2 + h + 8 * (w / 2);
    if (i / second != j / second) return {2, 0, 0};
    const bool back = row % 6 >= 3;
    const int bits = second_shift;  // a power of two each way, together 1 / second
    const int part = row % 3 == 2 ? -1 : row % 3, n2 = (back ? i : j) % second, at = back ? j : i;
    return entry(part, static_cast<int64_t>(n2) * (4 * (frequency(at) * above + s0) + 1), 4 * radix * above,
                 power_of_two(back ? -(bits / 2) : bits / 2 - bits));
  }
};

inline int log2_of(int64_t n) {
  int bits = 0;
  while (n >> bits > 1) ++bits;
  return bits;
}
inline Level make_level(int64_t length, int radix, int above) {
  const int columns = static_cast<int>(length / radix), wide = OuterPlan::kElements / radix;
  return {radix, radix / 16, columns, log2_of(radix / 16), log2_of(wide / 16), log2_of(columns / wide), above};
}

// Complex sums of 16 rows by 16 columns: [columns of slots 0-7, 8-15][fragment C].
struct Sums {
  float re[2][4] = {}, im[2][4] = {};
  DNASM_DEVICE Tile rounded() const {
    Tile x;
    DNASM_UNROLL
    for (int nt = 0; nt < 2; ++nt) round_to(x.re, nt, re[nt]), round_to(x.im, nt, im[nt]);
    return x;
  }
};

// d times x, or its conjugate.
template <bool kConjugate>
DNASM_DEVICE Sums product(const DftMatrix& d, const Tile& x) {
  Sums out;
  DNASM_UNROLL
  for (int nt = 0; nt < 2; ++nt) {
    mma_16816(out.re[nt], d.re.w, x.re[nt], x.re[nt + 2]);
    mma_16816(out.im[nt], d.re.w, x.im[nt], x.im[nt + 2]);
    mma_16816(out.re[nt], kConjugate ? d.im.w : d.neg_im.w, x.im[nt], x.im[nt + 2]);
    mma_16816(out.im[nt], kConjugate ? d.neg_im.w : d.im.w, x.re[nt], x.re[nt + 2]);
  }
  return out;
}

// A right operand from the column pairs of rows 2q, 2q + 1, 2q + 8, 2q + 9: half k of their chunks.
DNASM_DEVICE Tile join_rows(const Quad (&chunks)[4], int k) {
  Tile x;
  DNASM_UNROLL
  for (int i = 0; i < 2; ++i) {
    const Quad &a = chunks[2 * i], &b = chunks[2 * i + 1];
    x.re[2 * i] = low_halves(a.w[2 * k], b.w[2 * k]), x.re[2 * i + 1] = high_halves(a.w[2 * k], b.w[2 * k]);
    x.im[2 * i] = low_halves(a.w[2 * k + 1], b.w[2 * k + 1]), x.im[2 * i + 1] = high_halves(a.w[2 * k + 1], b.w[2 * k + 1]);
  }
  return x;
}

// Sequences in scratch, from the first one of a launch on: rows, and what their columns were rounded under.
struct Scratch {
  char* rows;           // 4 L bytes a sequence
  uint32_t* exponents;  // [sequence][blocks of columns]
};

// What a launch of an outer pass adds to its Params. Sequences are numbered channel by channel.
struct OuterWork {
  Level level;
  const Quad* tables;  // this level's
  int64_t sequence;    // the first one of this launch
  Scratch scratch;
};

// One thread's place in a block of an outer pass.
struct OuterWorker {
  const OuterWork& work;
  int lane, warp, block, column;  // block of columns, and its first column
  int64_t sequence;               // of this launch
  const Quad* tables;             // already at this lane

  explicit DNASM_DEVICE OuterWorker(const OuterWork& w) : work(w) {
    lane = thread_index() & 31, warp = thread_index() >> 5;  // shifts: signed divisions take three times as long
    sequence = block_index() >> w.level.blocks_shift;
    block = block_index() & (w.level.blocks() - 1);
    column = block * w.level.block_columns();
    tables = w.tables + (static_cast<int>(sequence) & (w.level.above - 1)) * w.level.row_tables() * 32 + lane;
  }
  DNASM_DEVICE int g() const { return lane >> 2; }
  DNASM_DEVICE int q() const { return lane & 3; }
  // Unit i of this warp: which 16 rows, and which 16 columns.
  DNASM_DEVICE int group(int i) const { return (warp * OuterPlan::kUnits + i) >> work.level.tile_shift; }
  DNASM_DEVICE int tile(int i) const { return (warp * OuterPlan::kUnits + i) & ((1 << work.level.tile_shift) - 1); }
  DNASM_DEVICE Quad table(int row) const { return load_table(tables + 32 * row); }
  // The second stage's, of 16 rows.
  DNASM_DEVICE DftMatrix matrix(int group, bool back) const {
    const Quad* at = tables + 32 * (4 + 6 * group + 3 * back);
    return {load_table(at), load_table(at + 32), load_table(at + 64)};
  }
  // Stage 1's matrix on the way back, a left operand too: a right one's words, in their own order.
  DNASM_DEVICE Quad back_table(int row) const {
    const Quad r = table(row);
    return {{r.w[0], r.w[2], r.w[1], r.w[3]}};
  }
  // A unit's fragment into shared memory and, as a right operand, out of it; rows `from` + `step` k.
  DNASM_DEVICE void store(const Tile& x, int from, int step, int t) const {
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) {
      char* at = dynamic_shared() + work.level.row_at(from + step * (g() + 8 * (w % 2))) + t * 32 + w / 2 * 16 + q() * 4;
      store_word(at, x.re[w]);
      store_word(at + 2 * work.level.block_columns(), x.im[w]);
    }
  }
  DNASM_DEVICE Tile load(int from, int step, int t) const {
    Tile x;
    const char* at = dynamic_shared() + work.level.row_at(from + step * ((lane & 7) + (lane >> 4 << 3))) + t * 32 + (lane & 8) * 2;
    ldmatrix_trans(x.re, at);
    ldmatrix_trans(x.im, at + 2 * work.level.block_columns());
    return x;
  }
  DNASM_DEVICE char* scratch(int row, int c) const {
    const Level& level = work.level;
    return work.scratch.rows + ((sequence * level.radix + row) * level.columns + column + c) * 4;
  }
  // To scratch: a unit's columns 4 q + 2 (t % 2) and 16 + them, and their right neighbours, half a chunk each.
  DNASM_DEVICE void finish(const Sums& sums, int rows, int t) const {
    DNASM_UNROLL
    for (int h = 0; h < 2; ++h) {
      Quad z;
      DNASM_UNROLL
      for (int j = 0; j < 2; ++j) {
        z.w[2 * j] = pack_half2(sums.re[0][2 * h + j], sums.re[1][2 * h + j]);
        z.w[2 * j + 1] = pack_half2(sums.im[0][2 * h + j], sums.im[1][2 * h + j]);
      }
      *reinterpret_cast<Quad*>(scratch(rows + g() + 8 * h, t / 2 * 32 + t % 2 * 16 + 4 * q())) = z;
    }
  }
  // After stage 1's sums have gone to shared memory: the second stage, and to scratch.
  DNASM_DEVICE void second_stage() const {
    sync_block();
    DNASM_UNROLL_ONCE
    for (int i = 0; i < OuterPlan::kUnits; i += 2) {
      const int rows = 16 * group(i);
      const DftMatrix d = matrix(group(i), false);
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) finish(product<false>(d, load(rows, 1, tile(i) + k)), rows, tile(i) + k);
    }
  }
  // The way back to last(x, i), unit i's operand for stage 1's adjoint: now column 2 g of a chunk is the unit's slot g.
  // begin() comes when all loads from scratch are under way, prepare(i) before units i and i + 1, to start theirs.
  // kPairs: how many pairs of units are loaded at once, where registers are few.
  template <int kPairs, class Begin, class Prepare, class Last>
  DNASM_DEVICE void inverse(const Begin& begin, const Prepare& prepare, const Last& last) const {
    const bool one_stage = work.level.second == 1;
    Quad chunks[OuterPlan::kUnits / 2][4];
    const auto load_pairs = [&](int first) {
      DNASM_UNROLL
      for (int k = 4 * first; k < 4 * (first + kPairs); ++k) {
        const int i = k / 4 * 2, w = k % 4, rows = one_stage ? 0 : 16 * group(i);
        const char* from = scratch(rows + 2 * q() + w % 2 + w / 2 * 8, tile(i) * 16 + chunk(g()));
        chunks[k / 4][w] = *reinterpret_cast<const Quad*>(from);
      }
    };
    load_pairs(0);
    begin();
    if (one_stage) {
      DNASM_UNROLL
      for (int i = 0; i < OuterPlan::kUnits; ++i) {
        if (i == 2 && kPairs == 1) load_pairs(1);
        if (i % 2 == 0) prepare(i);
        last(join_rows(chunks[i / 2], i % 2), i);
      }
      return;
    }
    if (kPairs == 2) prepare(0);
    DNASM_UNROLL
    for (int i = 0; i < OuterPlan::kUnits; ++i) {
      if (i == 2 && kPairs == 1) load_pairs(1);
      const Tile x = join_rows(chunks[i / 2], i % 2);
      store(product<true>(matrix(group(i), true), x).rounded(), 16 * group(i), 1, tile(i));
    }
    if (kPairs == 1) prepare(0);
    sync_block();
    DNASM_UNROLL
    for (int i = 0; i < OuterPlan::kUnits; ++i) {
      if (i == 2) prepare(2);
      last(load(group(i), work.level.second, tile(i)), i);
    }
  }
};

// A row's largest exponent from those of its blocks of columns, and what its elements were rounded under.
DNASM_DEVICE uint32_t row_maximum(const uint32_t* exponents, int count) {
  uint32_t most = 0;
  DNASM_UNROLL_ONCE
  for (int first = thread_index() % 32; first < count; first += 128) {
    DNASM_UNROLL
    for (int i = first; i < first + 128; i += 32) {
      const uint32_t e = i < count ? exponents[i] : 0;  // no branch: four loads at once
      most = e > most ? e : most;
    }
  }
  return warp_max(most);
}
DNASM_DEVICE int exponent_of(uint32_t most) { return static_cast<int>(most) - 127 - kTop; }

// By value: a choice of addresses would put parameters into local memory.
DNASM_DEVICE Rows either(bool first, const Rows& a, const Rows& b) {
  return {first ? a.data : b.data, first ? a.stride_b : b.stride_b, first ? a.stride_d : b.stride_d};
}

// Rows of one sequence of a tensor, from `column` on.
template <int kDtype, bool kFull>
DNASM_DEVICE Row<kDtype, kFull> tensor_row(const Params& p, const Rows& tensor, int64_t sequence, int column) {
  using Scalar = typename Element<kDtype>::Scalar;
  const uint32_t d = static_cast<uint32_t>(sequence) / static_cast<uint32_t>(p.batch);
  const uint32_t b = static_cast<uint32_t>(sequence) - d * static_cast<uint32_t>(p.batch);
  const int64_t offset = b * tensor.stride_b + d * tensor.stride_d + column;  // no branch: rows share the division
  return {tensor.data ? static_cast<Scalar*>(tensor.data) + offset : nullptr, static_cast<int>(p.length) - column};
}

// Four neighbours of a row, in whole rows at once; those are aligned.
template <int kDtype>
struct alignas(4 * sizeof(typename Element<kDtype>::Scalar)) Four {
  typename Element<kDtype>::Pair pair[2];
};
// A gate's pair, or ones where there is none.
template <int kDtype>
DNASM_DEVICE typename Element<kDtype>::Pair either(bool there, typename Element<kDtype>::Pair pair) {
  return there ? pair : Element<kDtype>::pack(1.0f, 1.0f);
}
template <int kDtype, bool kFull>
DNASM_DEVICE Four<kDtype> load_four(const Row<kDtype, kFull>& row, int n) {
  if constexpr (kFull) return *reinterpret_cast<const Four<kDtype>*>(row.at + n);
  else return {{row.load(n), row.load(n + 2)}};
}
template <int kDtype, bool kFull>
DNASM_DEVICE void store_four(const Row<kDtype, kFull>& row, int n, const Four<kDtype>& x) {
  if constexpr (kFull) *reinterpret_cast<Four<kDtype>*>(row.at + n) = x;
  else row.store(n, x.pair[0]), row.store(n + 2, x.pair[1]);
}

// Pass A: x = in_gate u of a tensor, or for backward out_gate dy, to the rows of the first level. Slot g of a pair of
// units holds the four columns from chunk(g) on, two in each.
template <int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(OuterPlan::kThreads, 3)
outer_forward_kernel(const Params p, const OuterWork work, const Rows tensor, const Rows gate) {
  using E = Element<kDtype>;
  const OuterWorker me(work);
  const Level& level = work.level;
  const bool gated = kGated && gate.data;
  const auto a = tensor_row<kDtype, kFull>(p, tensor, work.sequence + me.sequence, me.column + chunk(me.g()));
  const auto b = tensor_row<kDtype, kFull>(p, either(gated, gate, tensor), work.sequence + me.sequence, me.column + chunk(me.g()));
  constexpr int kLoads = 2 * OuterPlan::kUnits;
  Four<kDtype> fours[kLoads], factors[kLoads];  // four rows of two units at once
  DNASM_UNROLL
  for (int k = 0; k < kLoads; ++k) {
    const int unit = k / 4 * 2, w = k % 4, row = (2 * me.q() + w % 2 + w / 2 * 8) * level.second + me.group(unit);
    const int n = row * level.columns + me.tile(unit) * 16;
    fours[k] = load_four(a, n);
    if (kGated) factors[k] = load_four(b, n);  // without a gate x itself, unused: no branch keeps loads apart
  }
  Operand<OuterPlan> x;
  gather_row(x, reinterpret_cast<uint32_t*>(dynamic_shared() + level.maxima_at()), 0, [&](int unit, float(&v)[8]) {
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) {
      const auto pair = fours[unit / 2 * 4 + w].pair[unit % 2];
      v[sum_index(w, 0)] = E::low(pair), v[sum_index(w, 1)] = E::high(pair);
      if constexpr (kGated) {
        const auto factor = either<kDtype>(gated, factors[unit / 2 * 4 + w].pair[unit % 2]);
        v[sum_index(w, 0)] *= E::low(factor), v[sum_index(w, 1)] *= E::high(factor);
      }
    }
  });
  if (thread_index() == 0) work.scratch.exponents[me.sequence * level.blocks() + me.block] = x.most[0];
  const Quad re = me.table(0), im = me.table(1);
  const auto first = [&](int i) {
    const Quad words = x.words(i);
    Sums sums;
    DNASM_UNROLL
    for (int nt = 0; nt < 2; ++nt) {
      mma_16816(sums.re[nt], re.w, words.w[nt], words.w[nt + 2]);
      mma_16816(sums.im[nt], im.w, words.w[nt], words.w[nt + 2]);
    }
    return sums;
  };
  if (level.second == 1) {
    DNASM_UNROLL
    for (int i = 0; i < OuterPlan::kUnits; ++i) me.finish(first(i), 0, me.tile(i));
  } else {
    DNASM_UNROLL
    for (int i = 0; i < OuterPlan::kUnits; ++i) me.store(first(i).rounded(), me.group(i), level.second, me.tile(i));
    me.second_stage();
  }
}

// The way back to a tensor's elements, real: emit(i, h, n, sums) of four elements from n + the lane's own column on, of unit
// i, row h. prepare(i, h, n) comes before, for two units at a time, and begin() before all.
template <int kPairs, class Begin, class Prepare, class Emit>
DNASM_DEVICE void outer_inverse(const OuterWork& work, const Begin& begin, const Prepare& prepare, const Emit& emit) {
  const OuterWorker me(work);
  const auto place = [&](int i, int h) {
    return ((me.g() + 8 * h) * work.level.second + me.group(i)) * work.level.columns + me.tile(i) * 16;
  };
  const auto prepare_two = [&](int i) {
    DNASM_UNROLL
    for (int k = 0; k < 4; ++k) prepare(i + k / 2, k % 2, place(i + k / 2, k % 2));
  };
  const Quad re = me.back_table(2), im = me.back_table(3);
  me.inverse<kPairs>(begin, prepare_two, [&](const Tile& x, int i) {
    float c[2][4] = {};
    DNASM_UNROLL
    for (int nt = 0; nt < 2; ++nt) {
      mma_16816(c[nt], re.w, x.re[nt], x.re[nt + 2]);
      mma_16816(c[nt], im.w, x.im[nt], x.im[nt + 2]);
    }
    DNASM_UNROLL
    for (int h = 0; h < 2; ++h) {
      const float v[4] = {c[0][2 * h], c[1][2 * h], c[0][2 * h + 1], c[1][2 * h + 1]};
      emit(i, h, place(i, h), v);
    }
  });
}

struct alignas(8) HalfChunk {
  uint32_t re, im;
};

// A second level, for the longest plans: each row of the first is a sequence of its own, complex, in place in scratch.
struct MiddleWork {
  OuterWork outer;  // of the second level; its sequences are the first one's rows
  Level above;
  const uint32_t* exponents;  // of the first level's blocks of columns
  int block_shift;            // log2 of how wide those are
  DNASM_DEVICE DftMatrix first_matrix(const Quad& re, const Quad& im) const {
    return {re, im, {{neg_half2(im.w[0]), neg_half2(im.w[1]), neg_half2(im.w[2]), neg_half2(im.w[3])}}};
  }
};

template <int kThreads>  // a template, so that each object has its own
DNASM_KERNEL(kThreads, 2) middle_forward_kernel(const MiddleWork work) {
  const OuterWorker me(work.outer);
  const Level& level = work.outer.level;
  const uint32_t* exponents = work.exponents + me.sequence / work.above.radix * work.above.blocks();
  const int most = static_cast<int>(row_maximum(exponents, work.above.blocks()));
  const DftMatrix first = work.first_matrix(me.table(0), me.table(1));
  Quad words[OuterPlan::kUnits][4];  // pass A's slots, in halves of chunks
  uint32_t scales[OuterPlan::kUnits][4];
  DNASM_UNROLL
  for (int k = 0; k < 4 * OuterPlan::kUnits; ++k) {
    const int i = k / 4, w = k % 4, row = (2 * me.q() + w % 2 + w / 2 * 8) * level.second + me.group(i);
    scales[i][w] = exponents[(row * level.columns + me.column) >> work.block_shift];
    const HalfChunk half = *reinterpret_cast<const HalfChunk*>(me.scratch(row, me.tile(i) * 16 + 2 * me.g()));
    words[i][w] = {{half.re, half.im, 0, 0}};
  }
  DNASM_UNROLL
  for (int i = 0; i < OuterPlan::kUnits; ++i) {
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) {
      const float scale = power_of_two(static_cast<int>(scales[i][w]) - most);
      const uint32_t ratio = pack_half2(scale, scale);
      words[i][w].w[0] = mul_half2(words[i][w].w[0], ratio), words[i][w].w[1] = mul_half2(words[i][w].w[1], ratio);
    }
    me.store(product<false>(first, join_rows(words[i], 0)).rounded(), me.group(i), level.second, me.tile(i));
  }
  me.second_stage();
}

template <int kThreads>
DNASM_KERNEL(kThreads, 2) middle_inverse_kernel(const MiddleWork work) {
  const OuterWorker me(work.outer);
  const DftMatrix first = work.first_matrix(me.back_table(2), me.back_table(3));
  HalfChunk held[2][2];  // of the unit before: units go in pairs
  me.inverse<2>([] {}, [](int) {}, [&](const Tile& x, int i) {
    const Sums sums = product<true>(first, x);
    const int t = me.tile(i);
    DNASM_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int row = (me.g() + 8 * h) * work.outer.level.second + me.group(i);
      DNASM_UNROLL
      for (int j = 0; j < 2; ++j) {  // columns 4 q + 2 j, of chunk 2 q + j
        const HalfChunk mine{pack_half2(sums.re[0][2 * h + j], sums.re[1][2 * h + j]),
                             pack_half2(sums.im[0][2 * h + j], sums.im[1][2 * h + j])};
        if (i % 2)
          *reinterpret_cast<Quad*>(me.scratch(row, t / 2 * 32 + chunk(2 * me.q() + j))) = {
              {held[h][j].re, held[h][j].im, mine.re, mine.im}};
        else held[h][j] = mine;
      }
    }
  });
}

}  // namespace dnasm
