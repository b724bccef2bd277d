// Each hardware operation alone in one warp, for test_hardware.py: data in and out as plain arrays, no kernel included.
#include "../../csrc/host/hardware.cuh"

using namespace dnasm;

namespace {

template <class Body>
void one_warp(Body body) {
  static Body* current;
  current = &body;
  const char* text = launch(+[](int) { (*current)(thread_index()); }, LaunchShape{1, 32, 128, nullptr}, 0);
  if (text) host::fail(text);
}

}  // namespace

extern "C" {

void run_mma(int k, const uint32_t* a, const uint32_t* b, float* c) {
  one_warp([=](int lane) {
    float sums[4];
    for (int i = 0; i < 4; ++i) sums[i] = c[4 * lane + i];
    if (k == 16) {
      const uint32_t words[4] = {a[4 * lane], a[4 * lane + 1], a[4 * lane + 2], a[4 * lane + 3]};
      mma_16816(sums, words, b[2 * lane], b[2 * lane + 1]);
    } else {
      const uint32_t words[2] = {a[2 * lane], a[2 * lane + 1]};
      mma_1688(sums, words, b[lane]);
    }
    for (int i = 0; i < 4; ++i) c[4 * lane + i] = sums[i];
  });
}

void run_ldmatrix_trans(const uint16_t* matrices, uint32_t* out) {
  alignas(16) static uint16_t rows[256];
  memcpy(rows, matrices, sizeof rows);
  one_warp([=](int lane) {
    uint32_t words[4];
    ldmatrix_trans(words, reinterpret_cast<const char*>(rows + 8 * lane));
    for (int m = 0; m < 4; ++m) out[4 * lane + m] = words[m];
  });
}

void run_shuffle(const float* x, int mask, float* out) {
  one_warp([=](int lane) { out[lane] = shuffle_xor(x[lane], mask); });
}

void run_warp_max(const uint32_t* x, uint32_t* out) {
  one_warp([=](int lane) { out[lane] = warp_max(x[lane]); });
}

void run_pack(int n, const float* x, uint32_t* halves, uint32_t* bfloats) {
  for (int i = 0; i < n; ++i) halves[i] = pack_half2(x[i], x[i]), bfloats[i] = pack_bfloat2(x[i], x[i]);
}

void run_halves(uint32_t a, uint32_t b, uint32_t* low, uint32_t* high) { *low = low_halves(a, b), *high = high_halves(a, b); }

void run_half2(int n, const uint32_t* a, const uint32_t* b, const uint32_t* c, uint32_t* product, uint32_t* fused,
               uint32_t* negated) {
  for (int i = 0; i < n; ++i)
    product[i] = mul_half2(a[i], b[i]), fused[i] = fma_half2(a[i], b[i], c[i]), negated[i] = neg_half2(a[i]);
}
}
