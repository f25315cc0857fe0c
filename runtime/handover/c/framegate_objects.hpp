// framegate_objects.hpp: framegate_objects.h for C++17. No allocation, no exception.
//
//     framegate::ObjectsReceiver receiver{framegate::default_config(0x200), 16};    // the data id of the scene
//     receiver.feed(bytes, size, arrival_ns);
//     const auto seen = receiver.verdict(now_ns);
//     if (!seen.whole()) { brake(); }                          // it is not known what is there
//     for (const auto &each : seen) {
//         if (const auto class_id = each.reading().class_id()) { treat_as(*class_id); } else { treat_as_anything(); }
//     }
#ifndef FRAMEGATE_OBJECTS_HPP
#define FRAMEGATE_OBJECTS_HPP

#include "framegate_objects.h"
#include "framegate_verdict.hpp"

namespace framegate {

/// An object that is there now. Its label may be used only if its reading has a class.
class SeenObject {
public:
    /// From 1.
    [[nodiscard]] std::uint32_t slot() const noexcept { return raw_.slot; }
    /// The object's number, the same on every frame.
    [[nodiscard]] std::uint32_t track() const noexcept { return raw_.track; }
    [[nodiscard]] Reading reading() const noexcept { return Reading(raw_.reading); }

private:
    friend class ObjectsReading;
    explicit SeenObject(const framegate_seen_object &raw) noexcept : raw_(raw) {}
    framegate_seen_object raw_;
};

/// What is known about the objects at one time. It is a copy: a later message does not change it.
class ObjectsReading {
public:
    explicit ObjectsReading(const framegate_objects_reading &raw) noexcept : raw_(raw) {}

    /// Steps over the objects that are there now, by slot.
    class Iterator {
    public:
        Iterator(const framegate_objects_reading *raw, std::uint32_t place) noexcept : raw_(raw), place_(place) {}
        [[nodiscard]] SeenObject operator*() const noexcept { return SeenObject(raw_->objects[place_]); }
        Iterator &operator++() noexcept
        {
            ++place_;
            return *this;
        }
        [[nodiscard]] bool operator!=(const Iterator &other) const noexcept { return place_ != other.place_; }

    private:
        const framegate_objects_reading *raw_;
        std::uint32_t place_;
    };

    /// True if the objects are all that were found on a frame of the present. False says nothing about the road.
    [[nodiscard]] bool whole() const noexcept { return raw_.whole; }
    [[nodiscard]] explicit operator bool() const noexcept { return raw_.whole; }
    /// Whether each slot was heard of on the frame that the scene speaks of, and as many objects were in them.
    [[nodiscard]] bool agrees() const noexcept { return raw_.agrees; }
    /// Whether the frame could be looked at; it never has a class.
    [[nodiscard]] Reading scene() const noexcept { return Reading(raw_.scene); }
    [[nodiscard]] std::uint32_t size() const noexcept { return raw_.count; }
    [[nodiscard]] bool empty() const noexcept { return raw_.count == 0u; }
    [[nodiscard]] Iterator begin() const noexcept { return {&raw_, 0u}; }
    [[nodiscard]] Iterator end() const noexcept { return {&raw_, raw_.count}; }

private:
    framegate_objects_reading raw_;
};

/// The receiver of a scene and its slots, for one thread. It takes about 13 kB.
class ObjectsReceiver {
public:
    /// With the data id of the scene, as many slots as the sender has, 1 to FRAMEGATE_MAX_SLOTS, and as many regions as it
    /// judges beside the objects, 0 to FRAMEGATE_MAX_REGIONS: their messages are counted, and otherwise ignored.
    explicit ObjectsReceiver(const Config &config, std::uint32_t slots = FRAMEGATE_MAX_SLOTS,
                             std::uint32_t regions = 0) noexcept
    {
        const bool fits = regions <= FRAMEGATE_MAX_REGIONS;
        configured_ = framegate_objects_init(&raw_, &config, fits ? slots : 0u);
        (void)framegate_objects_set_regions(&raw_, regions);
    }

    /// False if the configuration or the number of slots or of regions is out of range: then nothing will ever be usable.
    [[nodiscard]] bool configured() const noexcept { return configured_; }
    /// Take one message of any of the streams, whatever its bytes are.
    Fault feed(const std::uint8_t *bytes, std::size_t size, std::int64_t arrival_ns) noexcept
    {
        return framegate_objects_feed(&raw_, bytes, size, arrival_ns);
    }
    /// The objects at this time.
    [[nodiscard]] ObjectsReading verdict(std::int64_t now_ns) const noexcept
    {
        framegate_objects_reading reading;
        framegate_objects_verdict(&raw_, now_ns, &reading);
        return ObjectsReading(reading);
    }
    /// Leave LATCHED, in every stream whose cause is gone. Returns whether none is latched any more.
    [[nodiscard]] bool release(std::int64_t now_ns) noexcept { return framegate_objects_release(&raw_, now_ns); }
    /// Forget everything proven; the counts stay.
    void restart() noexcept { framegate_objects_restart(&raw_); }
    /// How often a fault was found, in all streams together.
    [[nodiscard]] std::uint64_t count(Fault fault) const noexcept
    {
        if (static_cast<unsigned>(fault) >= static_cast<unsigned>(FRAMEGATE_FAULTS)) { return 0; }
        std::uint64_t sum = raw_.scene.faults[fault];
        for (std::uint32_t i = 0; i < raw_.count; ++i) { sum += raw_.slots[i].faults[fault]; }
        return sum;
    }
    /// Messages of the regions beside the objects.
    [[nodiscard]] std::uint64_t beside() const noexcept { return raw_.beside; }
    /// The receiver as C sees it.
    [[nodiscard]] framegate_objects *raw() noexcept { return &raw_; }

private:
    framegate_objects raw_;
    bool configured_ = false;
};

}  // namespace framegate

#endif  // FRAMEGATE_OBJECTS_HPP
