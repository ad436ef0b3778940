/* SPDX-License-Identifier: Apache-2.0 */
/* The report of `shoal doctor` and how it is shown; see doctor.h. */
#include "doctor.h"

#include <stdarg.h>
#include <string.h>

#include "bytes.h"

static const char *const level_names[] = {"", "ok", "warning", "error"};

void doctor_add(struct doctor_report *report, enum finding_level level, const char *where,
                const char *todo, const char *format, ...)
{
    va_list args;
    report->errors += level == FINDING_ERROR;
    report->warnings += level == FINDING_WARNING;
    if (report->count == FINDINGS_MAX)
        return;
    struct finding *finding = &report->findings[report->count++];
    *finding = (struct finding){.level = level, .check = report->check, .todo = todo};
    (void)snprintf(finding->where, sizeof finding->where, "%s", where);
    va_start(args, format);
    (void)vsnprintf(finding->what, sizeof finding->what, format, args);
    va_end(args);
}

static void finding_put(const struct finding *finding, FILE *out)
{
    (void)fprintf(out, "%-8s %-9s %s%s%s\n",
                  finding->level == FINDING_ERROR ? "ERROR" : level_names[finding->level],
                  finding->check, finding->where, finding->where[0] == '\0' ? "" : ": ",
                  finding->what);
    if (finding->todo[0] != '\0')
        (void)fprintf(out, "%-18s -> %s\n", "", finding->todo);
}

void doctor_text(const struct doctor_report *report, FILE *out)
{
    for (int level = FINDING_OK; level <= FINDING_ERROR; level++)
        for (unsigned i = 0; i < report->count; i++)
            if ((int)report->findings[i].level == level)
                finding_put(&report->findings[i], out);
    if (report->errors + report->warnings == 0)
        (void)fprintf(out, "nothing is wrong\n");
    else
        (void)fprintf(out, "%u wrong, %u worth a look\n", report->errors, report->warnings);
}

json_t *doctor_json(const struct doctor_report *report)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < report->count; i++) {
        const struct finding *at = &report->findings[i];
        (void)json_array_append_new(
            list, json_pack("{s:s,s:s,s:s,s:s,s:s}", "level", level_names[at->level], "check",
                            at->check, "where", at->where, "what", at->what, "do", at->todo));
    }
    return json_pack("{s:o,s:i,s:i}", "findings", list, "errors", (int)report->errors, "warnings",
                     (int)report->warnings);
}

bool doctor_secret_weak(const uint8_t *bytes, size_t byte_count)
{
    uint8_t seen[256] = {0};
    unsigned different = 0;
    for (size_t i = 0; i < byte_count; i++) {
        different += seen[bytes[i]] == 0;
        seen[bytes[i]] = 1;
    }
    return different < 12;
}

static int two_digits(const char *text, unsigned *out)
{
    if (text[0] < '0' || text[0] > '9' || text[1] < '0' || text[1] > '9')
        return E_MALFORMED;
    *out = (unsigned)(text[0] - '0') * 10 + (unsigned)(text[1] - '0');
    return 0;
}

/* Days since 1970 of a date in the Gregorian calendar, counted in years from March. */
static uint64_t days_since_1970(unsigned year, unsigned month, unsigned day)
{
    uint64_t y = month <= 2 ? year - 1 : year;
    uint64_t from_march = (month + 9) % 12;
    return y * 365 + y / 4 - y / 100 + y / 400 + (from_march * 153 + 2) / 5 + day - 1 - 719468;
}

int doctor_http_date(const char *text, uint64_t *wall_s)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    unsigned day, century, year, hour, minute, second, month = 0;
    if (strlen(text) != 29 || strcmp(text + 25, " GMT") != 0 || two_digits(text + 5, &day) != 0 ||
        two_digits(text + 12, &century) != 0 || two_digits(text + 14, &year) != 0 ||
        two_digits(text + 17, &hour) != 0 || two_digits(text + 20, &minute) != 0 ||
        two_digits(text + 23, &second) != 0 || century < 19)
        return E_MALFORMED;
    while (month < 12 && strncmp(months + (size_t)month * 3, text + 8, 3) != 0)
        month++;
    year += century * 100;
    if (month == 12 || day == 0 || day > 31 || hour > 23 || minute > 59 || second > 60 ||
        year < 1970)
        return E_MALFORMED;
    *wall_s =
        days_since_1970(year, month + 1, day) * 86400 + hour * 3600ull + minute * 60ull + second;
    return 0;
}
