export interface GroupState {
  readonly x?: never;
}
