#include "state/state.h"
int state_check(struct state_process *p){return 0;}
int state_prepare(struct state_process *p){return 0;}
int state_dump(struct state_process *p){return 0;}
int state_finish(struct state_process *p){return 0;}
void state_free_notes(struct state_process *p){}
