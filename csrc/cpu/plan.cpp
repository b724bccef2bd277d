#include "plan.h"

#include <cmath>
#include <list>
#include <mutex>

namespace dnasm::cpu {
namespace {

struct Root {
    float re, im;
};

// exp(2 pi i numerator / denominator) to the last bit of a float: the fraction is reduced before it is rounded.
Root root(int64_t numerator, int64_t denominator) {
    const double angle = 2 * M_PI * (double(numerator % denominator) / double(denominator));
    return {float(std::cos(angle)), float(std::sin(angle))};
}

void set_lane(Cvec& to, int lane, Root from) {
    to.re[lane] = from.re;
    to.im[lane] = from.im;
}

Stage make_stage(int radix, int64_t block) {
    const int64_t vectors = block / radix / kLanes;
    Stage stage{radix, vectors, Aligned<Cvec>(size_t(vectors * (radix - 1)))};
    for (int64_t v = 0; v < vectors; ++v)
        for (int m = 1; m < radix; ++m)
            for (int lane = 0; lane < kLanes; ++lane)
                set_lane(stage.roots.get()[v * (radix - 1) + m - 1], lane, root((v * kLanes + lane) * m, block));
    return stage;
}

}  // namespace

Plan::Plan(int64_t length_, const std::vector<int>& radices)
    : length(length_),
      radix(radices[0]),
      vectors(length_ / radices[0] / kLanes),
      coarse(size_t(2 * (length_ / kTail))),
      fine(size_t(8 * radices[0])) {
    const int64_t blocks = vectors * kLanes / kTail;
    for (int m = 0; m < radix; ++m) {
        for (int64_t block = 0; block < blocks; ++block) {
            const Root r = root(block * kTail * (4 * m + 1), 4 * length);
            coarse.get()[2 * (block * radix + m)] = r.re;
            coarse.get()[2 * (block * radix + m) + 1] = r.im;
        }
        for (int n = 0; n < kTail; ++n)
            set_lane(fine.get()[n / kLanes * radix + m], n % kLanes, root(n * (4 * m + 1), 4 * length));
        const Root turn = root(m, 4 * radix);
        twist[m][0] = turn.re;
        twist[m][1] = turn.im;
    }
    int64_t block = length / radix;
    for (size_t i = 1; i + 2 < radices.size(); ++i) {
        stages.push_back(make_stage(radices[i], block));
        block /= radices[i];
    }
    for (int m = 0; m < 8; ++m)
        for (int lane = 0; lane < kLanes; ++lane) set_lane(tail[m], lane, root(lane * m, kTail));
}

std::shared_ptr<const Plan> plan_for(int64_t length, const std::vector<int>& radices) {
    static std::mutex mutex;
    static std::list<std::shared_ptr<const Plan>> recent;  // newest first
    constexpr size_t kKept = 16;
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto it = recent.begin(); it != recent.end(); ++it) {
        if ((*it)->length == length) {
            recent.splice(recent.begin(), recent, it);
            return recent.front();
        }
    }
    recent.push_front(std::make_shared<const Plan>(length, radices));
    if (recent.size() > kKept) recent.pop_back();
    return recent.front();
}

}  // namespace dnasm::cpu
