// Radices and roots of one transform length. dnasm/ops/plan.py chooses the radices and says where frequencies stand.
#pragma once
#include <memory>
#include <vector>

#include "vector.h"

namespace dnasm::cpu {

constexpr int64_t kTail = 64;  // the last two stages, 8 x 8, stay in registers

template <class T> struct Aligned {  // memory for cache lines; new[] of C++17 respects alignas
    explicit Aligned(size_t n = 0) : data(new T[n]) {}
    T* get() const { return data.get(); }
    std::unique_ptr<T[]> data;
};

struct Stage {
    int radix;
    int64_t vectors;      // of each of its `radix` results
    Aligned<Cvec> roots;  // [vector][m - 1]: exp(2 pi i n m / (radix * 8 vectors)), m = 1 .. radix - 1
};

struct Plan {
    Plan(int64_t length, const std::vector<int>& radices);

    int64_t length;
    // The first stage alone knows the quarter: its roots are exp(2 pi i n (m + 1/4) / length). They are kept as
    // products of a coarse factor, n in steps of 64, and a fine one, or they would be as large as the signal.
    int radix;
    int64_t vectors;
    Aligned<float> coarse;  // [n / 64][m][re, im]
    Aligned<Cvec> fine;     // [n % 64 / 8][m]
    float twist[8][2];      // exp(2 pi i j / (4 radix)): what turns row j of the input before the first butterfly
    std::vector<Stage> stages;
    Cvec tail[8];  // exp(2 pi i lane m / 64)
};

// The plan from this process's store of recent ones.
std::shared_ptr<const Plan> plan_for(int64_t length, const std::vector<int>& radices);

}  // namespace dnasm::cpu
