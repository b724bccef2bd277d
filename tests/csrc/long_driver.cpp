// Every kernel of the long plans' tensor-core path on a few blocks each, for the race checker: what they compute is judged
// elsewhere. One block of 256 rows by 32 columns for a sequence, one row of the inner transform.
#include <vector>

#include "../../csrc/fftconv/launch.cu"
#include "../../csrc/fftconv/long.cuh"

using namespace dnasm;

namespace {

using P = Plan<4096>;
constexpr int64_t kBatch = 1, kLength = 8192, kAll = kBatch * kLength;

char* room(size_t bytes) {  // zeros
  void* at = nullptr;
  if (posix_memalign(&at, 256, bytes)) exit(2);
  memset(at, 0, bytes);
  return static_cast<char*>(at);
}

bool run(uint64_t seed) {
  host::emulator.random = seed;
  Rows rows[8];
  for (Rows& each : rows) each = {room(2 * kAll), kLength, kAll};
  Params p{};
  p.batch = kBatch, p.channels = 1, p.length = kLength, p.dtype = kBfloat16;
  p.u = rows[0], p.in_gate = rows[1], p.out_gate = rows[2], p.y = rows[3];
  p.dy = rows[4], p.du = rows[5], p.din_gate = rows[6], p.dout_gate = rows[7];
  const float skip = 1;
  p.skip = &skip;
  const Level level = make_level(kLength, 256, 1);
  const int tables_at = P::Rows::kRows + level.table_rows(), rows_of_tables = tables_at + 256 * RowTables::kRows;
  SpectrumLayout layout{rows_of_tables * 512, 512, 4 * kLength};
  p.spectrum = room(layout.table_bytes + 512 + 4 * kLength);
  const Quad* tables = static_cast<const Quad*>(p.spectrum);
  const Scratch x{room(4 * kAll), reinterpret_cast<uint32_t*>(room(256))}, g{room(4 * kAll), reinterpret_cast<uint32_t*>(room(256))};
  const OuterWork of_x{level, tables + P::Rows::kRows * 32, 0, x};
  OuterWork of_g = of_x;
  of_g.scratch = g;
  const Level above = make_level(16 * kLength, 16, 1);  // as if the sequence were one row of it
  const MiddleWork middle{of_x, above, x.exponents, above.tile_shift + 4};
  const InnerWork inner{layout, tables + tables_at * 32, 1, 1, true, 12, 0, x};
  float* partial = reinterpret_cast<float*>(room(16 * P::kLength));
  float* skip_sums = reinterpret_cast<float*>(room(64));
  const InnerBackWork back{inner, g, 2, 1, partial, false};  // two sequences, of one row each
  const LaunchShape outside{kBatch * level.blocks(), OuterPlan::kThreads, level.shared_bytes(), nullptr};
  const ResultWork on_x{of_x, layout, 1, nullptr}, on_g{of_g, layout, 1, skip_sums};
  const char* text = launch(long_table_kernel<P>, {(rows_of_tables + 3) / 4, 128, 0, nullptr}, p, level);
  if (!text) text = launch(outer_forward_kernel<kBfloat16, true, true>, outside, p, of_x, p.u, p.in_gate);
  if (!text) text = launch(outer_forward_kernel<kBfloat16, true, true>, outside, p, of_g, p.dy, p.out_gate);
  if (!text) text = launch(middle_forward_kernel<OuterPlan::kThreads>, outside, middle);
  if (!text) text = launch(middle_inverse_kernel<OuterPlan::kThreads>, outside, middle);
  if (!text) text = launch(inner_forward_kernel<P, 1>, {kBatch, P::kThreads, P::kSequenceBytes, nullptr}, p, inner);
  if (!text) text = launch(inner_forward_kernel<P, 2>, {1, P::kThreads, 2 * P::kSequenceBytes, nullptr}, p, inner);
  if (!text) text = launch(inner_backward_kernel<P, true>, {1, P::kThreads, InnerBackWork::shared_bytes<P>(), nullptr}, p, back);
  if (!text) text = launch(output_kernel<kBfloat16, true, true>, outside, p, on_x);
  if (!text) text = launch(gradients_kernel<kBfloat16, true, true>, outside, p, on_x, on_g);
  if (text) fprintf(stderr, "%s\n", text);
  return !text;
}

}  // namespace

int main() { return run(1) ? 0 : 1; }
