/* framegate_objects.h: which moving objects are there now, and which of their labels may be used; C11 or C++17.
 *
 * docs/handover.md, "Objects that move", is the specification. No allocation; one framegate_objects takes about 13 kB.
 *
 *     framegate_objects objects;
 *     framegate_config config = framegate_config_default(0x101u);                     the data id of the scene
 *     if (!framegate_objects_init(&objects, &config, 16u)) { ... out of range ... }
 *     framegate_objects_set_regions(&objects, 2u);                                    only if the sender has --roi, too
 *     framegate_objects_feed(&objects, bytes, size, arrival_ns);                      for every message that comes
 *     framegate_objects_verdict(&objects, now_ns, &seen);                             as often as you like
 *     if (!seen.whole) { ... it is not known what is there: your safe state ... }
 *     for (uint32_t i = 0u; i < seen.count; ++i) {
 *         if (seen.objects[i].reading.usable) { ... seen.objects[i].reading.class_id ... }
 *         else { ... something is there, and nothing may be said about it ... }
 *     }
 */
#ifndef FRAMEGATE_OBJECTS_H
#define FRAMEGATE_OBJECTS_H

#include "framegate_verdict.h"

#define FRAMEGATE_MAX_SLOTS 16u
#define FRAMEGATE_MAX_REGIONS 1000u /* beside the objects */

/* What the slots said when a scene came. A reading of later may find a slot that went on to the next frame, whose scene
 * is not there yet: so the list of the scene's frame is kept. */
typedef struct framegate_said {
    uint64_t epoch;
    int64_t frame_id; /* FRAMEGATE_NO_FRAME_ID: not all the same */
    uint32_t objects;
    uint32_t tracks[FRAMEGATE_MAX_SLOTS];
    uint64_t reasons[FRAMEGATE_MAX_SLOTS];
    int64_t ends_ns[FRAMEGATE_MAX_SLOTS];
} framegate_said;

typedef struct framegate_objects {
    framegate_receiver scene;
    framegate_receiver slots[FRAMEGATE_MAX_SLOTS];
    uint32_t count;   /* of slots */
    uint32_t regions; /* beside the objects, whose messages come here, too */
    uint64_t beside;  /* messages of these regions */
    framegate_said said[2];
} framegate_objects;

/* An object that is there now. */
typedef struct framegate_seen_object {
    uint32_t slot; /* from 1 */
    uint32_t track;
    framegate_reading reading;
} framegate_seen_object;

typedef struct framegate_objects_reading {
    bool whole;              /* objects are all that were found on a frame of the present */
    bool agrees;             /* the slots were heard of on the frame that the scene speaks of: objects are those on it */
    framegate_reading scene; /* whether the frame could be looked at; it has no class */
    uint32_t count;          /* of objects */
    framegate_seen_object objects[FRAMEGATE_MAX_SLOTS];
} framegate_objects_reading;

static inline void framegate_objects_forget(framegate_objects *objects)
{
    (void)memset(objects->said, 0, sizeof objects->said);
    for (size_t i = 0u; i < 2u; ++i) {
        objects->said[i].frame_id = FRAMEGATE_NO_FRAME_ID;
    }
}

/* Make a receiver for a scene, with the data id of the configuration, and its slots, 1 to 16, with those behind it.
 * Returns false if something is out of range: then nothing will ever be usable. */
static inline bool framegate_objects_init(framegate_objects *objects, const framegate_config *config, uint32_t slots)
{
    framegate_config each = *config;
    bool good;
    (void)memset(objects, 0, sizeof *objects);
    framegate_objects_forget(objects);
    if ((slots < 1u) || (slots > FRAMEGATE_MAX_SLOTS)) {
        return false;
    }
    each.scene = true;
    good = framegate_receiver_init(&objects->scene, &each);
    each.scene = false;
    for (uint32_t i = 0u; i < slots; ++i) {
        each.data_id = config->data_id + i + 1u;
        good = framegate_receiver_init(&objects->slots[i], &each) && good;
    }
    objects->count = slots;
    return good;
}

/* Fixed regions that the sender judges beside the objects and whose messages come here, too, 0 to 1000. They are counted,
 * and otherwise ignored: whoever uses their verdicts has a framegate_receiver for each. Returns false if there cannot be so
 * many: then it is as before. */
static inline bool framegate_objects_set_regions(framegate_objects *objects, uint32_t regions)
{
    const bool good = regions <= FRAMEGATE_MAX_REGIONS;
    objects->regions = good ? regions : objects->regions;
    return good;
}

/* Note what the slots say, when a scene comes and before it is read. */
static inline void framegate_look_at_slots(framegate_objects *objects)
{
    framegate_said now;
    bool same = objects->count > 0u;
    (void)memset(&now, 0, sizeof now);
    for (uint32_t i = 0u; i < objects->count; ++i) {
        const framegate_receiver *slot = &objects->slots[i];
        same = same && slot->has_held && (slot->held.epoch == objects->slots[0].held.epoch) &&
               (slot->held.frame_id == objects->slots[0].held.frame_id);
        now.objects += (slot->has_held && (slot->held.track != FRAMEGATE_NO_TRACK)) ? 1u : 0u;
        now.tracks[i] = slot->held.track;
        now.reasons[i] = slot->held.reasons;
        now.ends_ns[i] = slot->ends_ns;
    }
    now.epoch = same ? objects->slots[0].held.epoch : 0u;
    now.frame_id = same ? objects->slots[0].held.frame_id : FRAMEGATE_NO_FRAME_ID;
    objects->said[0] = objects->said[1];
    objects->said[1] = now;
}

/* Take one message of any of the streams; what belongs to none of them is the scene's to refuse. What is sent for a region
 * beside the objects says nothing about them, whatever its bytes are: it is ignored, and FRAMEGATE_NONE. */
static inline framegate_fault framegate_objects_feed(framegate_objects *objects, const uint8_t *bytes, size_t size,
                                                     int64_t arrival_ns)
{
    if (size >= 8u) {
        const uint32_t number = (uint32_t)framegate_get(&bytes[4], 4u) - objects->scene.config.data_id;
        if ((number >= 1u) && (number <= objects->count)) {
            return framegate_receiver_feed(&objects->slots[number - 1u], bytes, size, arrival_ns);
        }
        if ((number > objects->count) && ((number - objects->count) <= objects->regions)) {
            ++objects->beside;
            return FRAMEGATE_NONE;
        }
    }
    framegate_look_at_slots(objects);
    return framegate_receiver_feed(&objects->scene, bytes, size, arrival_ns);
}

/* What the slots said on the scene's frame; NULL if that was not the same of all, or not what the scene says. */
static inline const framegate_said *framegate_said_of(const framegate_objects *objects)
{
    const framegate_message *scene = &objects->scene.held;
    const framegate_said *found = NULL;
    for (size_t i = 0u; i < 2u; ++i) {
        const framegate_said *said = &objects->said[i];
        const bool same = (said->frame_id != FRAMEGATE_NO_FRAME_ID) && (said->epoch == scene->epoch) &&
                          (said->frame_id == scene->frame_id) && (said->objects == scene->objects);
        found = ((found == NULL) && same) ? said : found;
    }
    return (objects->scene.has_held && (scene->region == objects->count)) ? found : NULL;
}

/* What is said now about an object of the list: whatever its slot says, if that still speaks of this object. */
static inline framegate_reading framegate_reading_of(const framegate_said *said, uint32_t slot,
                                                     const framegate_receiver *receiver, framegate_reading newest)
{
    framegate_reading reading = newest;
    if ((receiver->held.epoch != said->epoch) || (newest.track != said->tracks[slot])) {
        (void)memset(&reading, 0, sizeof reading);
        reading.why = FRAMEGATE_NOT_PROVEN | ((said->reasons[slot] != 0u) ? FRAMEGATE_REJECTED : 0u);
        reading.class_id = FRAMEGATE_NO_CLASS;
        reading.state = FRAMEGATE_DO_NOT_USE;
        reading.reasons = said->reasons[slot];
        reading.frame_id = said->frame_id;
        reading.ends_ns = said->ends_ns[slot];
        reading.track = said->tracks[slot];
    }
    return reading;
}

/* The objects at this time. Changes nothing. */
static inline void framegate_objects_verdict(const framegate_objects *objects, int64_t now_ns,
                                             framegate_objects_reading *out)
{
    const framegate_said *said = framegate_said_of(objects);
    framegate_reading readings[FRAMEGATE_MAX_SLOTS];
    bool good[FRAMEGATE_MAX_SLOTS];
    (void)memset(out, 0, sizeof *out);
    out->scene = framegate_receiver_verdict(&objects->scene, now_ns);
    out->agrees = said != NULL;
    for (uint32_t i = 0u; i < objects->count; ++i) {
        readings[i] = framegate_receiver_verdict(&objects->slots[i], now_ns);
        /* A slot that says nothing else is good, and of the present: empty, rejected, or not proven yet. */
        good[i] = (readings[i].why & ~(FRAMEGATE_REJECTED | FRAMEGATE_NOT_PROVEN)) == 0u;
        out->agrees = out->agrees && good[i] && (now_ns <= said->ends_ns[i]);
    }
    for (uint32_t i = 0u; i < objects->count; ++i) {
        framegate_reading reading = readings[i];
        if (out->agrees) {
            reading = framegate_reading_of(said, i, &objects->slots[i], reading);
        }
        if (good[i] && (reading.track != FRAMEGATE_NO_TRACK)) {
            out->objects[out->count].slot = i + 1u;
            out->objects[out->count].track = reading.track;
            out->objects[out->count].reading = reading;
            ++out->count;
        }
    }
    out->whole = out->agrees && out->scene.usable;
}

/* Leave LATCHED, in every stream whose cause is gone. Returns whether none is latched any more. */
static inline bool framegate_objects_release(framegate_objects *objects, int64_t now_ns)
{
    bool released = framegate_receiver_release(&objects->scene, now_ns);
    for (uint32_t i = 0u; i < objects->count; ++i) {
        released = framegate_receiver_release(&objects->slots[i], now_ns) && released;
    }
    return released;
}

/* Forget everything proven; the counts stay. */
static inline void framegate_objects_restart(framegate_objects *objects)
{
    framegate_receiver_restart(&objects->scene);
    for (uint32_t i = 0u; i < objects->count; ++i) {
        framegate_receiver_restart(&objects->slots[i]);
    }
    framegate_objects_forget(objects);
}

#endif /* FRAMEGATE_OBJECTS_H */
