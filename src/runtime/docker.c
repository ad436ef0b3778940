/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dockerd: the agent as first of registry-mirrors in daemon.json. The text is edited, so that its
 * layout stays; jansson judges it before and after, and the two may differ in that element only.
 * dockerd asks mirrors for Docker Hub's images alone, without saying so.
 */
#include <jansson.h>
#include <string.h>

#include "state.h"

#define MAIN_FILE "/etc/docker/daemon.json"
#define KEY       "registry-mirrors"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* ---- places in a text that jansson has accepted ---- */

struct place {
    size_t start, end;
};
#define MIRRORS_MAX 64
struct layout {
    struct place object; /* inside the braces of the whole */
    bool has_member;     /* any key at all */
    bool found;          /* our key */
    struct place member; /* "registry-mirrors": [...] */
    struct place array;  /* inside its brackets */
    struct place elements[MIRRORS_MAX];
    unsigned element_count;
};

static size_t skip_blank(const struct span *text, size_t at)
{
    while (at < text->bytes && is_blank(text->at[at]))
        at++;
    return at;
}

/* Behind the string that begins here. */
static size_t skip_string(const struct span *text, size_t at)
{
    for (at++; at < text->bytes && text->at[at] != '"'; at++)
        if (text->at[at] == '\\')
            at++;
    return at + 1;
}

/* Behind the value that begins here. */
static size_t skip_value(const struct span *text, size_t at)
{
    size_t depth = 0;
    while (at < text->bytes) {
        char c = text->at[at];
        if (c == '"') {
            at = skip_string(text, at);
        } else {
            if (depth == 0 && (c == ',' || c == '}' || c == ']' || is_blank(c)))
                return at;
            depth += c == '{' || c == '[';
            depth -= c == '}' || c == ']';
            at++;
        }
        if (depth == 0 && (c == '"' || c == '}' || c == ']'))
            return at;
    }
    return at;
}

static void lay_out_array(const struct span *text, struct layout *layout)
{
    size_t at = skip_blank(text, layout->array.start);
    while (at < text->bytes && text->at[at] != ']' && layout->element_count < MIRRORS_MAX) {
        size_t end = skip_value(text, at);
        layout->elements[layout->element_count++] = (struct place){at, end};
        at = skip_blank(text, end);
        if (at < text->bytes && text->at[at] == ',')
            at = skip_blank(text, at + 1);
    }
    layout->array.end = at;
}

/* False if this is no object, or the key is spelled with escapes or holds something else. */
static bool lay_out(const struct span *text, bool has_key, struct layout *out)
{
    static const char key[] = "\"" KEY "\"";
    size_t at = skip_blank(text, 0);
    *out = (struct layout){.object = {at + 1, at + 1}};
    if (at >= text->bytes || text->at[at] != '{')
        return false;
    at = skip_blank(text, at + 1);
    while (at < text->bytes && text->at[at] == '"') {
        size_t start = at;
        size_t key_end = skip_string(text, at);
        at = skip_blank(text, skip_blank(text, key_end) + 1); /* over the colon */
        size_t end = skip_value(text, at);
        bool ours =
            key_end - start == sizeof key - 1 && memcmp(text->at + start, key, sizeof key - 1) == 0;
        out->has_member = true;
        if (ours) {
            out->found = true;
            out->member = (struct place){start, end};
            out->array = (struct place){at + 1, end - 1};
            if (at >= text->bytes || text->at[at] != '[')
                return false;
            lay_out_array(text, out);
        }
        at = skip_blank(text, end);
        if (at < text->bytes && text->at[at] == ',')
            at = skip_blank(text, at + 1);
    }
    out->object.end = at;
    return out->found == has_key && out->element_count < MIRRORS_MAX;
}

/* ---- what it means ---- */

static bool is_empty(const struct span *text)
{
    return skip_blank(text, 0) == text->bytes;
}

/* An object with, at most, a list of strings under our key. */
static int load(const struct span *text, json_t **out, struct runtime_error *error)
{
    json_error_t why;
    const char *name;
    json_t *value;
    json_t *root = is_empty(text) ? json_object()
                                  : json_loadb(text->at, text->bytes, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL && is_empty(text))
        return plan__no_memory(error);
    if (root == NULL) {
        char *near = strstr(why.text, " near "); /* a piece of the file, which may be a secret */
        if (near != NULL)
            *near = '\0';
        return runtime_fail(error, E_REFUSED, "%d: %.200s", why.line, why.text);
    }
    int err = json_is_object(root) ? 0 : runtime_fail(error, E_REFUSED, "1: not a JSON object");
    json_object_foreach(root, name, value)
    {
        if (strcmp(name, KEY) != 0 && strcasecmp(name, KEY) == 0)
            err = runtime_fail(error, E_REFUSED, "1: \"%.40s\" is spelled in another case", name);
        if (strcmp(name, KEY) == 0 && !json_is_array(value))
            err = runtime_fail(error, E_REFUSED, "1: " KEY " is no list");
    }
    if (err != 0)
        json_decref(root);
    else
        *out = root;
    return err;
}

static size_t index_of(const json_t *array, const char *mirror)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *one = json_string_value(json_array_get(array, i));
        if (one != NULL && strcmp(one, mirror) == 0)
            return i;
    }
    return SIZE_MAX;
}

/* Is `after` what `model` says? Takes over `model`. */
static int prove(const struct span *after, json_t *model, struct runtime_error *error)
{
    json_t *got = NULL;
    int err = load(after, &got, error);
    if (err == 0 && json_equal(got, model) == 0)
        err = runtime_fail(error, E_REFUSED, "1: the file is laid out in a way that is not edited");
    json_decref(got);
    json_decref(model);
    return err;
}

/* ---- in ---- */

static void add_quoted(struct text *out, const char *mirror)
{
    text_add_string(out, "\"");
    text_add_string(out, mirror); /* runtime_plan_new has seen that nothing needs an escape */
    text_add_string(out, "\"");
}

/* The text with our element first, or with our key first. */
static void build_with(const struct span *text, const struct layout *layout, const char *mirror,
                       struct text *out)
{
    struct place inside = layout->found ? layout->array : layout->object;
    bool more = layout->found ? layout->element_count > 0 : layout->has_member;
    size_t first = skip_blank(text, inside.start);
    text_add(out, text->at, more ? first : inside.start);
    if (!layout->found)
        text_add_string(out, "\"" KEY "\": [");
    add_quoted(out, mirror);
    if (!layout->found)
        text_add_string(out, "]");
    if (more) { /* as far from the next one as the first was from the bracket */
        text_add_string(out, ",");
        text_add(out, text->at + inside.start, first - inside.start);
        if (first == inside.start)
            text_add_string(out, " ");
    }
    size_t rest = more ? first : inside.start;
    text_add(out, text->at + rest, text->bytes - rest);
}

static json_t *model_with(const json_t *before, const char *mirror)
{
    json_t *model = json_deep_copy(before);
    json_t *array = json_object_get(model, KEY);
    if (model != NULL && array == NULL) {
        array = json_array();
        if (json_object_set_new(model, KEY, array) != 0)
            array = NULL;
    }
    if (array == NULL || json_array_insert_new(array, 0, json_string(mirror)) != 0) {
        json_decref(model);
        return NULL;
    }
    return model;
}

/* `text`, whose meaning is `before`, with our element. */
static int put_first(struct pool *pool, const struct span *text, const json_t *before,
                     const char *mirror, struct span *out, struct runtime_error *error)
{
    struct layout layout;
    struct text after;
    text_init(&after, pool);
    if (is_empty(text)) {
        text_add_string(&after, "{\n  \"" KEY "\": [");
        add_quoted(&after, mirror);
        text_add_string(&after, "]\n}\n");
    } else {
        if (!lay_out(text, json_object_get(before, KEY) != NULL, &layout))
            return runtime_fail(error, E_REFUSED,
                                "1: the file is laid out in a way that is not edited");
        build_with(text, &layout, mirror, &after);
    }
    json_t *model = model_with(before, mirror);
    if (text_end(&after) != 0 || model == NULL) {
        json_decref(model);
        return plan__no_memory(error);
    }
    *out = (struct span){after.at, after.bytes};
    return prove(out, model, error);
}

int docker__add(struct pool *pool, const struct span *text, const char *mirror, struct span *out,
                bool *behind, struct runtime_error *error)
{
    json_t *before = NULL;
    int err = load(text, &before, error);
    if (err != 0)
        return err;
    size_t index = index_of(json_object_get(before, KEY), mirror);
    *behind = index != SIZE_MAX && index > 0;
    *out = *text;
    if (index == SIZE_MAX)
        err = put_first(pool, text, before, mirror, out, error);
    json_decref(before);
    return err;
}

/* The file without the element of an earlier apply, if the agent has another address now. What the
 * manifest does not tell, or cannot be read here, is not looked for. */
static int without_old(struct runtime_plan *plan, const struct change *change, struct span *out,
                       struct runtime_error *why)
{
    struct undo undo = {.format = PLAN_JSON, .text = change->before.text, .before = {"", 0}};
    struct runtime_error ignored;
    bool found;
    *out = change->before.text;
    struct state *state = pool_alloc(&plan->pool, sizeof *state);
    if (state == NULL)
        return plan__no_memory(why);
    int err = state_open(&plan->pool, &plan->options, false, state, &ignored);
    const struct state_file *file = err == 0 ? state_find(state, change->host_path) : NULL;
    if (file != NULL && strcmp(file->mirror, plan->options.mirror) != 0 &&
        (!file->existed || state_fetch(state, file->before, &undo.before, &ignored) == 0)) {
        undo.mirror = file->mirror;
        err = docker__undo(&plan->pool, &undo, out, &found, why);
    } else if (err != E_NO_MEMORY) {
        err = 0;
    }
    state_close(state);
    return err;
}

static int plan_file(struct runtime_plan *plan, struct change *change, struct runtime_error *error)
{
    struct runtime_error why = {""};
    struct span base;
    bool behind = false;
    int err = without_old(plan, change, &base, &why);
    if (err == 0)
        err = docker__add(&plan->pool, &base, plan->options.mirror, &change->after, &behind, &why);
    if (err != 0)
        return runtime_fail(error, err, "%.300s:%.600s", change->host_path, why.text);
    if (behind)
        plan__note(plan, "%.300s: others are asked before the agent", change->host_path);
    return plan__change(plan, change, error);
}

int docker__plan(struct runtime_plan *plan, struct runtime_error *error)
{
    const struct runtime_options *options = &plan->options;
    struct change change = {.host_path =
                                options->config_file != NULL ? options->config_file : MAIN_FILE,
                            .format = PLAN_JSON};
    const char *slash = strrchr(change.host_path, '/');
    const char *path;
    bool there;
    if (options->registry_count != 1 || strcmp(options->registries[0].name, "docker.io") != 0)
        return runtime_fail(error, E_INVALID,
                            "dockerd asks mirrors for Docker Hub's images without saying so: "
                            "docker.io must be the agent's default registry, or they would be "
                            "taken from another one");
    const char *directory = slash == NULL ? NULL
                                          : pool_copy(&plan->pool, change.host_path,
                                                      (size_t)(slash - change.host_path));
    if (directory == NULL)
        return plan__no_memory(error);
    int err = plan__path(plan, directory, &path, error);
    if (err == 0)
        err = tree_directory(path, &there, error);
    if (err == 0 && !there)
        err = runtime_fail(error, E_REFUSED, "there is no %.300s: is docker installed here?",
                           directory);
    if (err == 0)
        err = plan__path(plan, change.host_path, &change.path, error);
    if (err == 0)
        err = tree_read(&plan->pool, change.path, TREE_EDIT, &change.before, error);
    if (err == 0)
        err = plan_file(plan, &change, error);
    if (err == 0 && plan->change_count > 0)
        plan__note(plan, "dockerd reads this at `systemctl reload docker`. If its command line has "
                         "--registry-mirror, too, it does not start with both");
    return err;
}

/* ---- out ---- */

/* [start, end) with the comma that goes with it: the one behind, or of the last one that before. */
static struct place with_comma(const struct span *text, struct place one)
{
    size_t behind = skip_blank(text, one.end);
    if (behind < text->bytes && text->at[behind] == ',')
        return (struct place){one.start, skip_blank(text, behind + 1)};
    size_t before = one.start;
    while (before > 0 && is_blank(text->at[before - 1]))
        before--;
    if (before > 0 && text->at[before - 1] == ',')
        return (struct place){before - 1, one.end};
    return one;
}

static int take_out(struct pool *pool, const struct undo *undo, json_t *model, size_t index,
                    struct span *out, struct runtime_error *error)
{
    struct layout layout;
    struct text after;
    struct span before = undo->before;
    json_t *old = NULL;
    json_t *array = json_object_get(model, KEY);
    int err = load(&before, &old, error);
    if (err != 0)
        return err;
    bool whole = json_array_size(array) == 1 && json_object_get(old, KEY) == NULL;
    json_decref(old);
    if (!lay_out(&undo->text, true, &layout) || index >= layout.element_count)
        return runtime_fail(error, E_REFUSED,
                            "1: the file is laid out in a way that is not edited");
    struct place gone = with_comma(&undo->text, whole ? layout.member : layout.elements[index]);
    text_init(&after, pool);
    text_add(&after, undo->text.at, gone.start);
    text_add(&after, undo->text.at + gone.end, undo->text.bytes - gone.end);
    if (text_end(&after) != 0 ||
        (whole ? json_object_del(model, KEY) : json_array_remove(array, index)) != 0)
        return plan__no_memory(error);
    *out = (struct span){after.at, after.bytes};
    return prove(out, json_incref(model), error);
}

int docker__undo(struct pool *pool, const struct undo *undo, struct span *out, bool *found,
                 struct runtime_error *error)
{
    json_t *model = NULL;
    int err = load(&undo->text, &model, error);
    if (err != 0)
        return err;
    size_t index = index_of(json_object_get(model, KEY), undo->mirror);
    *found = index != SIZE_MAX;
    *out = undo->text;
    if (*found)
        err = take_out(pool, undo, model, index, out, error);
    json_decref(model);
    return err;
}
