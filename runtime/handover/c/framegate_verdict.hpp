// framegate_verdict.hpp: framegate_verdict.h for C++17. No allocation, no exception.
//
//     framegate::Receiver receiver{framegate::default_config(0x101)};
//     receiver.feed(bytes, size, arrival_ns);
//     if (const auto class_id = receiver.verdict(now_ns).class_id()) { drive(*class_id); } else { brake(); }
#ifndef FRAMEGATE_VERDICT_HPP
#define FRAMEGATE_VERDICT_HPP

#include <cstddef>
#include <cstdint>
#include <optional>

#include "framegate_verdict.h"

namespace framegate {

using Config = framegate_config;
using Fault = framegate_fault;
using State = framegate_state;

/// The configuration with every default, for the stream with this data id.
inline Config default_config(std::uint32_t data_id) noexcept { return framegate_config_default(data_id); }

/// What was certified about a label: FRAMEGATE_LINF, FRAMEGATE_L2 or FRAMEGATE_PATCH, and the radius in 255ths of the pixel
/// range, or the side of the patch in pixels of the region.
struct Certificate {
    std::uint32_t kind;
    float radius;
};

/// What a receiver says at one time. There is no way to the class but through `class_id`, which is empty if nothing may
/// be used.
class Reading {
public:
    explicit Reading(const framegate_reading &raw) noexcept : raw_(raw) {}

    /// True if driving logic may use the class now.
    [[nodiscard]] explicit operator bool() const noexcept { return raw_.usable; }
    [[nodiscard]] bool usable() const noexcept { return raw_.usable; }
    /// The class, if it may be used now.
    [[nodiscard]] std::optional<std::uint32_t> class_id() const noexcept
    {
        const bool has_class = raw_.usable && (raw_.class_id != FRAMEGATE_NO_CLASS);  // a scene has none
        return has_class ? std::optional<std::uint32_t>(raw_.class_id) : std::nullopt;
    }
    /// Its calibrated probability, if it may be used now.
    [[nodiscard]] std::optional<float> confidence() const noexcept
    {
        return class_id() ? std::optional<float>(raw_.confidence) : std::nullopt;
    }
    /// What was certified about the class on this frame, if it may be used now; empty if nothing was.
    [[nodiscard]] std::optional<Certificate> certificate() const noexcept
    {
        const bool certified = class_id() && (raw_.certificate_kind != FRAMEGATE_NO_CERTIFICATE);
        return certified ? std::optional<Certificate>({raw_.certificate_kind, raw_.certificate_radius}) : std::nullopt;
    }
    /// Why nothing may be used: bits FRAMEGATE_NOT_ALIVE and so on; 0 exactly if usable.
    [[nodiscard]] std::uint32_t why() const noexcept { return raw_.why; }
    [[nodiscard]] State state() const noexcept { return raw_.state; }
    /// The sender's reasons, for displays.
    [[nodiscard]] std::uint64_t reasons() const noexcept { return raw_.reasons; }
    [[nodiscard]] std::int64_t frame_id() const noexcept { return raw_.frame_id; }
    [[nodiscard]] std::int64_t ends_ns() const noexcept { return raw_.ends_ns; }
    /// Number of the object that the newest verdict speaks of; FRAMEGATE_NO_TRACK if it follows none.
    [[nodiscard]] std::uint32_t track() const noexcept { return raw_.track; }

private:
    framegate_reading raw_;
};

/// The receiver of one stream, for one thread.
class Receiver {
public:
    explicit Receiver(const Config &config) noexcept { configured_ = framegate_receiver_init(&raw_, &config); }

    /// False if the configuration is out of range: then nothing will ever be usable.
    [[nodiscard]] bool configured() const noexcept { return configured_; }
    /// Take one message, whatever its bytes are.
    Fault feed(const std::uint8_t *bytes, std::size_t size, std::int64_t arrival_ns) noexcept
    {
        return framegate_receiver_feed(&raw_, bytes, size, arrival_ns);
    }
    /// The newest verdict, and whether it may be used at this time.
    [[nodiscard]] Reading verdict(std::int64_t now_ns) const noexcept
    {
        return Reading(framegate_receiver_verdict(&raw_, now_ns));
    }
    /// Leave LATCHED, if the cause is gone. Returns whether it is not latched any more.
    [[nodiscard]] bool release(std::int64_t now_ns) noexcept { return framegate_receiver_release(&raw_, now_ns); }
    /// Forget everything proven, as a new receiver would; the counts stay.
    void restart() noexcept { framegate_receiver_restart(&raw_); }
    [[nodiscard]] std::uint64_t count(Fault fault) const noexcept
    {
        return (static_cast<unsigned>(fault) < static_cast<unsigned>(FRAMEGATE_FAULTS)) ? raw_.faults[fault] : 0;
    }
    [[nodiscard]] std::uint64_t received() const noexcept { return raw_.received; }
    [[nodiscard]] std::uint64_t good() const noexcept { return raw_.good; }
    [[nodiscard]] std::uint64_t lost_messages() const noexcept { return raw_.lost_messages; }
    /// The receiver as C sees it, e.g. for framegate_udp_feed.
    [[nodiscard]] framegate_receiver *raw() noexcept { return &raw_; }

private:
    framegate_receiver raw_;
    bool configured_ = false;
};

}  // namespace framegate

#endif  // FRAMEGATE_VERDICT_HPP
