// Threads: the caller's pool for work that lies side by side, a gang of our own for work in lockstep.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace dnasm::cpu {

class Threads {
  public:
    // Runs body(worker, context) for every worker below `workers`, side by side if it can, and waits for all.
    virtual void run(int64_t workers, void (*body)(int64_t worker, void* context), void* context) = 0;

  protected:
    ~Threads() = default;
};

// Threads that sleep between steps. OpenMP's, which torch's pool is made of, spin: with many short steps on a machine
// that has other work, they take the very processor that the last worker of a step is waiting for.
class Gang final : public Threads {
  public:
    explicit Gang(int64_t workers) {
        for (int64_t worker = 1; worker < workers; ++worker) threads_.emplace_back([this, worker] { serve(worker); });
    }
    Gang(const Gang&) = delete;
    ~Gang() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            body_ = nullptr;
            ++step_;
        }
        start_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

    void run(int64_t workers, void (*body)(int64_t, void*), void* context) override {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            body_ = body;
            context_ = context;
            workers_ = workers;
            busy_ = int64_t(threads_.size());
            ++step_;
        }
        start_.notify_all();
        body(0, context);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

  private:
    void serve(int64_t worker) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (int64_t seen = 0;;) {
            start_.wait(lock, [&] { return step_ != seen; });
            seen = step_;
            if (!body_) return;
            const bool needed = worker < workers_;
            lock.unlock();
            if (needed) body_(worker, context_);
            lock.lock();
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable start_, done_;
    int64_t step_ = 0, busy_ = 0, workers_ = 0;
    void (*body_)(int64_t, void*) = nullptr;
    void* context_ = nullptr;
    std::vector<std::thread> threads_;
};

struct Crew {
    Threads* threads = nullptr;
    int64_t workers = 1;

    // Deals out the items below n: body(item, worker), each to a worker that is free.
    template <class Body> void each(int64_t n, Body body) const {
        struct Context {
            std::atomic<int64_t> next{0};
            int64_t n;
            Body* body;
        } context{{0}, n, &body};
        auto work = [](int64_t worker, void* erased) {
            auto& c = *static_cast<Context*>(erased);
            for (int64_t item; (item = c.next.fetch_add(1)) < c.n;) (*c.body)(item, worker);
        };
        const int64_t needed = std::min(workers, n);
        if (needed <= 1) return work(0, &context);
        threads->run(needed, work, &context);
    }
};

}  // namespace dnasm::cpu
