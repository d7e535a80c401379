/** What the server tells about itself while it works, for metrics. Nothing of it names anybody. */
export interface Observer {
  /** A call has been answered. `method` is undefined for an unknown one; `status` as in `Status`. */
  answered(method: string | undefined, status: number, durationMs: number): void;
  /** An envelope was taken from its sender: its bytes, however many recipients it has. */
  enqueued(bytes: number): void;
  /** A limit on how often has refused something; its name as in `RateSettings`, or `recovery`. */
  limited(limit: string): void;
  /** A limit on how often has made a call wait for its turn; its name as in `RateSettings`. */
  paced(limit: string): void;
  /** A connection was refused for what its network address has already, or ended because nobody logged in. */
  turnedAway(why: 'address' | 'rate' | 'idle'): void;
  /** A plugin was asked. */
  pluginAnswered(plugin: string, hook: string, outcome: 'allowed' | 'rejected' | 'failed', durationMs: number): void;
}

export const NO_OBSERVER: Observer = {
  answered: () => {},
  enqueued: () => {},
  limited: () => {},
  paced: () => {},
  turnedAway: () => {},
  pluginAnswered: () => {},
};
