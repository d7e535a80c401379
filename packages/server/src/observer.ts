/** What the server tells about itself while it works, for metrics. Nothing of it names anybody. */
export interface Observer {
  /** A call has been answered. `method` is undefined for an unknown one; `status` as in `Status`. */
  answered(method: string | undefined, status: number, durationMs: number): void;
  /** An envelope was taken from its sender: its bytes, however many recipients it has. */
  enqueued(bytes: number): void;
}

export const NO_OBSERVER: Observer = { answered: () => {}, enqueued: () => {} };
