export interface PendingCommit {
  readonly x?: never;
}
