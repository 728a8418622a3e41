#include "shim/member/guesses.hpp"

#include <algorithm>
#include <functional>
#include <thread>

#include "shim/log.hpp"

namespace kvcached::member {

namespace {

using std::chrono::milliseconds;

constexpr Duration kPatience = std::chrono::seconds(5);

}  // namespace

bool Guesses::add(Member& member, std::shared_ptr<cache::Buffer> buffer, Pages kept) noexcept {
  const std::lock_guard lock(mutex_);
  const driver::Address base = buffer->base();
  first_ = std::min(first_.load(), base);
  end_ = std::max(end_.load(), base + buffer->reserved().value);
  try {
    guesses_.push_back(Guess{&member, std::move(buffer), kept});
  } catch (...) {
    return false;
  }
  open_.fetch_add(1);
  return true;
}

void Guesses::drop(const Guess& guess) noexcept {
  guess.member->uncharge(guess.kept);
  open_.fetch_sub(1);
}

void Guesses::settle(const std::shared_ptr<cache::Buffer>& buffer) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = find(buffer);
  if (found == guesses_.end()) return;
  drop(*found);
  guesses_.erase(found);
}

Pages Guesses::kept(const Member& member) noexcept {
  const std::lock_guard lock(mutex_);
  Pages sum;
  for (const Guess& guess : guesses_)
    if (guess.member == &member) sum += guess.kept;
  return sum;
}

std::vector<Guesses::Guess>::iterator Guesses::find(
    const std::shared_ptr<cache::Buffer>& buffer) noexcept {
  return std::find_if(guesses_.begin(), guesses_.end(),
                      [&](const Guess& guess) { return guess.buffer == buffer; });
}

template <class F>
cache::Result Guesses::once(Guess& guess, F attempt) noexcept {
  const Prepaid prepaid(*guess.member, guess.kept);
  const cache::Result backed = std::invoke(attempt, *guess.buffer);
  guess.kept = prepaid.rest();
  // The calling thread's context may be the one that faulted, and the buffer's be well.
  guess.lost = backed == cache::Result::lost &&
               guess.buffer->driver().synchronize(guess.buffer->context()) == driver::Status::lost;
  return backed;
}

template <class F>
bool Guesses::back(Guess& guess, F attempt) noexcept {
  const Instant deadline = clock_.now() + kPatience;
  for (Duration pause = milliseconds(1);;
       pause = std::min<Duration>(pause * 2, milliseconds(100))) {
    const cache::Result backed = once(guess, attempt);
    // Freed or lost: nothing is to be backed. Being claimed: whoever claims it says what is, and if
    // that comes to nothing it is a guess again.
    if (backed == cache::Result::ok || backed == cache::Result::invalid ||
        backed == cache::Result::lost)
      return true;
    if (clock_.now() >= deadline) {
      warn("an allocation of {} MiB cannot be backed before its first use: the GPU is full",
           guess.buffer->requested().value >> 20);
      return false;
    }
    std::this_thread::sleep_for(pause);
  }
}

bool Guesses::back_all() noexcept {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = guesses_.size(); i-- > 0;) {
    if (!back(guesses_[i], &cache::Buffer::back_whole)) return false;
    drop_settled(i);
  }
  return true;
}

void Guesses::drop_settled(std::size_t i) noexcept {
  const cache::Use use = guesses_[i].buffer->use();
  if (!guesses_[i].lost && (use == cache::Use::unclaimed || use == cache::Use::claimed)) return;
  drop(guesses_[i]);
  guesses_.erase(guesses_.begin() + static_cast<std::ptrdiff_t>(i));
}

cache::Result Guesses::back_whole(const std::shared_ptr<cache::Buffer>& buffer) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = find(buffer);
  if (found == guesses_.end()) return buffer->back_whole();
  const cache::Result backed = once(*found, &cache::Buffer::back_whole);
  drop_settled(static_cast<std::size_t>(found - guesses_.begin()));
  return backed;
}

bool Guesses::holds(const Guess& guess, const Touch& touch) const noexcept {
  const driver::Address base = guess.buffer->base();
  const driver::Address end = base + guess.buffer->reserved().value;
  // What begins before the buffer may reach into it.
  return touch.at < end && (touch.at >= base || base - touch.at < touch.bytes.value);
}

bool Guesses::back(std::span<const Touch> touched) noexcept {
  const std::lock_guard lock(mutex_);
  for (const Touch& touch : touched) {
    for (std::size_t i = guesses_.size(); i-- > 0;) {
      Guess& guess = guesses_[i];
      if (!holds(guess, touch)) continue;
      const driver::Address base = guess.buffer->base();
      const Bytes offset(touch.at > base ? touch.at - base : 0);
      const Bytes before(touch.at < base ? base - touch.at : 0);
      if (!back(guess, [&](cache::Buffer& buffer) {
            return touch.bytes ? buffer.back_part(offset, touch.bytes - before)
                               : buffer.back_whole();
          }))
        return false;
      drop_settled(i);
    }
  }
  return true;
}

}  // namespace kvcached::member
