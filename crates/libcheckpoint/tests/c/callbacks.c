/* Registers, replaces and unregisters; tells what it is called for, a line each. Reads commands from its input. */
#include <errno.h>
#include <pthread.h>
#include <steadfast/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int answer = STEADFAST_READY;

static int before(const steadfast_checkpoint_t *checkpoint, void *argument) {
    if (checkpoint->requester_pid == 0 || checkpoint->silence_ms == 0 || checkpoint->ready_ms == 0) abort();
    /* Does nothing here. */
    if (steadfast_section_enter() != 0 || steadfast_section_leave() != 0) abort();
    printf("%s before %s %d phase %d\n", (char *)argument, checkpoint->images ? checkpoint->images : "-",
           checkpoint->goes_on, steadfast_checkpoint_phase());
    fflush(stdout);
    return answer;
}

static int after(int outcome, const char *text, void *argument) {
    printf("%s after %d %s\n", (char *)argument, outcome, text ? text : "-");
    fflush(stdout);
    return outcome == STEADFAST_CONTINUED ? 7 : 0;
}

int main(void) {
    uint64_t first, second;
    char line[64];
    errno = 4711;
    if (steadfast_checkpoint_register(NULL, NULL, NULL, NULL) != -EINVAL) return 2;
    if (steadfast_checkpoint_unregister(9) != -ENOENT) return 3;
    if (steadfast_checkpoint_register(before, after, "first", &first) != 0) return 4;
    if (steadfast_checkpoint_register(before, NULL, "second", &second) != 0) return 5;
    if (steadfast_section_leave() != -EPERM) return 6;
    if (errno != 4711) return 7;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int result = 0;
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "enter")) result = steadfast_section_enter();
        else if (!strcmp(line, "try")) result = steadfast_section_try_enter();
        else if (!strcmp(line, "leave")) result = steadfast_section_leave();
        else if (!strcmp(line, "replace")) result = steadfast_checkpoint_replace(first, NULL, after, "replaced");
        else if (!strcmp(line, "unregister")) result = steadfast_checkpoint_unregister(second);
        else if (!strcmp(line, "not now")) answer = STEADFAST_NOT_NOW;
        else if (!strcmp(line, "never")) answer = 99;
        else if (!strcmp(line, "phase")) result = steadfast_checkpoint_phase();
        else return 8;
        printf("%s: %d\n", line, result);
        fflush(stdout);
    }
    return 0;
}
