// What stands outside one block: transforms of length L = R S by a right-angle transform of R rows down every column.
//
// Element n = n1 S + r, frequency m = s + R m': row s holds z_s[r] = e(r (s + 1/4 - R/4) / L) sum_n1 x[n1 S + r]
// e(n1 (s + 1/4) / R), and frequency m is z_s's own right-angle transform at m'. So the next level, or the inner
// transform of one block, begins where this one ends, with the quarter in it. R = 16 Rb: first 16 rows n1 = n1' Rb + n2
// at each n2, with the matrix of every plan; then, through shared memory, Rb rows n2 at each m1, whose matrix
// e(n2 (s + 1/4) / R), s = m1 + 16 m2, has the twiddle in it. Row m1 Rb + m2 of scratch holds s.
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

DNASM_SHARED_CODE int chunk(int g) { return g % 2 * 16 + g / 2 * 4; }

// e(n turn / 2^32): turns wrap as 32-bit numbers do, so that no fraction is lost however large n.
DNASM_DEVICE Complex turn_by(uint32_t turn, int n) {
  const uint32_t fraction = turn * static_cast<uint32_t>(n) + 0x80000000u;
  return quick_cos_sin(bits_float(fraction >> 9 | 0x3f800000u) - 1.5f);
}

struct Level {
  int radix, second, columns;  // R = 16 second, S
  int second_shift;            // log2 of `second`
  int tile_shift;              // log2 of the 16-column tiles of a block
  int turn_shift;              // 2^32 is one turn: 4 L times 2^turn_shift
  DNASM_SHARED_CODE int block_columns() const { return 16 << tile_shift; }
  DNASM_SHARED_CODE int blocks() const { return columns >> (tile_shift + 4); }
  DNASM_SHARED_CODE int frequency(int row) const { return (row >> second_shift) + 16 * (row & (second - 1)); }
  // (s + 1/4 - R/4) / L of a row
  DNASM_DEVICE uint32_t turn(int row) const {
    return static_cast<uint32_t>(4 * frequency(row) + 1 - radix) << turn_shift;
  }
  // Shared memory: rows 16 bytes apart modulo 128, whether they are neighbours or `second` apart; re, then im.
  DNASM_SHARED_CODE int row_at(int row) const {
    return row * (4 * block_columns() + 16) + (row >> second_shift) * 16;
  }
  DNASM_SHARED_CODE int maxima_at() const { return second == 1 ? 0 : row_at(radix); }
  DNASM_SHARED_CODE size_t shared_bytes() const { return static_cast<size_t>(maxima_at()) + 64; }

  // The tables of the second stage: for each 16 rows, re, im, -im forward and the same for the way back, transposed.
  DNASM_SHARED_CODE int table_rows() const { return second == 1 ? 0 : radix / 16 * 6; }
  DNASM_DEVICE Entry entry_of(int row, int w, int h, int lane) const {
    const int i = row / 6 * 16 + lane / 4 + 8 * (w % 2), j = row / 6 * 16 + lane % 4 * 2 + h + 8 * (w / 2);
    if (i / second != j / second) return {2, 0, 0};
    const bool back = row % 6 >= 3;
    const int bits = second_shift;  // a power of two each way, together 1 / second
    const int part = row % 3 == 2 ? -1 : row % 3, n2 = (back ? i : j) % second, at = back ? j : i;
    return entry(part, static_cast<int64_t>(n2) * (4 * frequency(at) + 1), 4 * radix,
                 power_of_two(back ? -(bits / 2) : bits / 2 - bits));
  }
};

inline int log2_of(int64_t n) {
  int bits = 0;
  while (n >> bits > 1) ++bits;
  return bits;
}
inline Level make_level(int64_t length, int radix) {
  return {radix, radix / 16, static_cast<int>(length / radix), log2_of(radix / 16), log2_of(OuterPlan::kElements / radix / 16),
          30 - log2_of(length)};
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

// The halves of two words, as stage 1 wants them: rows side by side.
DNASM_DEVICE uint32_t low_halves(uint32_t a, uint32_t b) { return (a & 0xffffu) | b << 16; }
DNASM_DEVICE uint32_t high_halves(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000u); }

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
  const Quad *first, *second;  // tables: stage 1 of every plan, and this level's
  int64_t sequence;            // the first one of this launch
  Scratch scratch;
};

// One thread's place in a block of an outer pass.
struct OuterWorker {
  const OuterWork& work;
  int lane, warp, block, column;  // block of columns, and its first column
  int64_t sequence;               // of this launch

  explicit DNASM_DEVICE OuterWorker(const OuterWork& w) : work(w) {
    lane = thread_index() % 32, warp = thread_index() / 32;
    sequence = block_index() / w.level.blocks();
    block = block_index() % w.level.blocks();
    column = block * w.level.block_columns();
  }
  DNASM_DEVICE int g() const { return lane / 4; }
  DNASM_DEVICE int q() const { return lane % 4; }
  // Unit i of this warp: which 16 rows, and which 16 columns.
  DNASM_DEVICE int group(int i) const { return (warp * OuterPlan::kUnits + i) >> work.level.tile_shift; }
  DNASM_DEVICE int tile(int i) const { return (warp * OuterPlan::kUnits + i) & ((1 << work.level.tile_shift) - 1); }
  DNASM_DEVICE Quad table(const Quad* from, int row) const { return load_table(from + 32 * row + lane); }
  DNASM_DEVICE DftMatrix matrix(const Quad* from, int row) const {
    return {table(from, row), table(from, row + 1), table(from, row + 2)};
  }
  // Stage 1's matrix on the way back, a left operand too: a right one's words, in their own order.
  DNASM_DEVICE Quad back_table(int row) const {
    const Quad r = table(work.first, row);
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
    const char* at = dynamic_shared() + work.level.row_at(from + step * (lane % 8 + lane / 16 * 8)) + t * 32 + lane / 8 % 2 * 16;
    ldmatrix_trans(x.re, at);
    ldmatrix_trans(x.im, at + 2 * work.level.block_columns());
    return x;
  }
  DNASM_DEVICE char* scratch(int row, int c) const {
    const Level& level = work.level;
    return work.scratch.rows + ((sequence * level.radix + row) * level.columns + column + c) * 4;
  }
  // What the turns of a lane's columns in rows g and g + 8 have in common.
  struct RowTurns {
    uint32_t turn[2];
    Complex one[2], sixteen[2];
  };
  DNASM_DEVICE RowTurns row_turns(int rows) const {
    RowTurns t;
    DNASM_UNROLL
    for (int h = 0; h < 2; ++h) {
      t.turn[h] = work.level.turn(rows + g() + 8 * h);
      t.one[h] = turn_by(t.turn[h], 1), t.sixteen[h] = turn_by(t.turn[h], 16);
    }
    return t;
  }
  // To scratch, turned: a unit's columns 4 q + 2 (t % 2) and 16 + them, and their right neighbours, half a chunk each.
  DNASM_DEVICE void finish(const Sums& sums, int rows, int t, const RowTurns& turns) const {
    const int pair = t / 2 * 32, half = t % 2;
    DNASM_UNROLL
    for (int h = 0; h < 2; ++h) {
      Complex z[4], turn[4];
      turn[0] = turn_by(turns.turn[h], column + pair + 4 * q() + 2 * half);
      turn[1] = turn[0] * turns.one[h], turn[2] = turn[0] * turns.sixteen[h], turn[3] = turn[1] * turns.sixteen[h];
      DNASM_UNROLL
      for (int j = 0; j < 4; ++j)
        z[j] = Complex{sums.re[j % 2][2 * h + j / 2], sums.im[j % 2][2 * h + j / 2]} * turn[j];
      *reinterpret_cast<Quad*>(scratch(rows + g() + 8 * h, pair + 16 * half + 4 * q())) = {
          {pack_half2(z[0].re, z[1].re), pack_half2(z[0].im, z[1].im), pack_half2(z[2].re, z[3].re),
           pack_half2(z[2].im, z[3].im)}};
    }
  }
  // After stage 1's sums have gone to shared memory: the second stage, and to scratch.
  DNASM_DEVICE void second_stage() const {
    sync_block();
    DNASM_UNROLL_ONCE
    for (int i = 0; i < OuterPlan::kUnits; i += 2) {
      const int rows = 16 * group(i);
      const DftMatrix d = matrix(work.second, 6 * group(i));
      const RowTurns turns = row_turns(rows);
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) finish(product<false>(d, load(rows, 1, tile(i) + k)), rows, tile(i) + k, turns);
    }
  }
  // The way back to last(x, i), unit i's operand for stage 1's adjoint: now column 2 g of a chunk is the unit's slot g.
  // prepare(i) comes before units i and i + 1, in time to start their loads.
  template <class Prepare, class Last>
  DNASM_DEVICE void inverse(const Prepare& prepare, const Last& last) const {
    const bool one_stage = work.level.second == 1;
    DNASM_UNROLL
    for (int i = 0; i < OuterPlan::kUnits; i += 2) {
      const int rows = one_stage ? 0 : 16 * group(i);
      Quad chunks[4];
      DNASM_UNROLL
      for (int w = 0; w < 4; ++w) {
        const char* from = scratch(rows + 2 * q() + w % 2 + w / 2 * 8, tile(i) * 16 + chunk(g()));
        chunks[w] = *reinterpret_cast<const Quad*>(from);
      }
      if (one_stage) prepare(i);
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) {
        const Tile x = join_rows(chunks, k);
        if (one_stage) last(x, i + k);
        else store(product<true>(matrix(work.second, 6 * group(i) + 3), x).rounded(), rows, 1, tile(i) + k);
      }
    }
    if (one_stage) return;
    prepare(0);
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
  for (int i = thread_index() % 32; i < count; i += 32) most = exponents[i] > most ? exponents[i] : most;
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
  const uint32_t b = static_cast<uint32_t>(sequence) % static_cast<uint32_t>(p.batch);
  Scalar* at = static_cast<Scalar*>(tensor.data);
  if (at) at += b * tensor.stride_b + d * tensor.stride_d + column;
  return {at, static_cast<int>(p.length) - column};
}

// Four neighbours of a row, in whole rows at once; those are aligned.
template <int kDtype>
struct alignas(4 * sizeof(typename Element<kDtype>::Scalar)) Four {
  typename Element<kDtype>::Pair pair[2];
};
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
  Four<kDtype> fours[4], factors[4];
  Operand<OuterPlan> x;
  gather_row(x, reinterpret_cast<uint32_t*>(dynamic_shared() + level.maxima_at()), 0, [&](int unit, float(&v)[8]) {
    const int half = unit % 2;
    DNASM_UNROLL
    for (int w = 0; w < 4 && half == 0; ++w) {
      const int row = (2 * me.q() + w % 2 + w / 2 * 8) * level.second + me.group(unit), n = row * level.columns + me.tile(unit) * 16;
      fours[w] = load_four(a, n);
      if (kGated) factors[w] = load_four(b, n);  // without a gate x itself, unused: no branch keeps loads apart
    }
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) {
      const auto pair = fours[w].pair[half], factor = factors[w].pair[half];
      v[sum_index(w, 0)] = E::low(pair) * (gated ? E::low(factor) : 1.0f);
      v[sum_index(w, 1)] = E::high(pair) * (gated ? E::high(factor) : 1.0f);
    }
  });
  if (thread_index() == 0) work.scratch.exponents[me.sequence * level.blocks() + me.block] = x.most[0];
  const Quad re = me.table(work.first, 0), im = me.table(work.first, 1);
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
    const OuterWorker::RowTurns turns = me.row_turns(0);
    DNASM_UNROLL
    for (int i = 0; i < OuterPlan::kUnits; ++i) me.finish(first(i), 0, me.tile(i), turns);
  } else {
    DNASM_UNROLL
    for (int i = 0; i < OuterPlan::kUnits; ++i) me.store(first(i).rounded(), me.group(i), level.second, me.tile(i));
    me.second_stage();
  }
}

// The way back to a tensor's elements, real: emit(i, h, n, sums) of four elements from n + the lane's own column on, of unit
// i, row h. prepare(i, h, n) comes before, for two units at a time.
template <class Prepare, class Emit>
DNASM_DEVICE void outer_inverse(const OuterWork& work, const Prepare& prepare, const Emit& emit) {
  const OuterWorker me(work);
  const auto place = [&](int i, int h) {
    return ((me.g() + 8 * h) * work.level.second + me.group(i)) * work.level.columns + me.tile(i) * 16;
  };
  const auto prepare_two = [&](int i) {
    DNASM_UNROLL
    for (int k = 0; k < 4; ++k) prepare(i + k / 2, k % 2, place(i + k / 2, k % 2));
  };
  const Quad re = me.back_table(2), im = me.back_table(3);
  me.inverse(prepare_two, [&](const Tile& x, int i) {
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
  const DftMatrix first = work.first_matrix(me.table(work.outer.first, 0), me.table(work.outer.first, 1));
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
  const uint32_t turn = 0u - work.above.turn(static_cast<int>(me.sequence % work.above.radix));
  const Complex step = turn_by(turn, 1);
  HalfChunk held[2][2];  // of the unit before: units go in pairs
  me.inverse([](int) {}, [&](const Tile& x, int i) {
    const Sums sums = product<true>(first, x);
    const int t = me.tile(i);
    DNASM_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int row = (me.g() + 8 * h) * work.outer.level.second + me.group(i);
      Complex z[4], w = turn_by(turn, row * work.outer.level.columns + me.column + t * 16 + me.q() * 4);
      DNASM_UNROLL
      for (int j = 0; j < 4; ++j) {
        z[j] = Complex{sums.re[j % 2][2 * h + j / 2], sums.im[j % 2][2 * h + j / 2]} * w;
        w = w * step;
      }
      DNASM_UNROLL
      for (int j = 0; j < 2; ++j) {  // columns 4 q + 2 j, of chunk 2 q + j
        const HalfChunk mine{pack_half2(z[2 * j].re, z[2 * j + 1].re), pack_half2(z[2 * j].im, z[2 * j + 1].im)};
        if (i % 2)
          *reinterpret_cast<Quad*>(me.scratch(row, t / 2 * 32 + chunk(2 * me.q() + j))) = {
              {held[h][j].re, held[h][j].im, mine.re, mine.im}};
        else held[h][j] = mine;
      }
    }
  });
}

}  // namespace dnasm
