//! What the hub shares between threads. Under `cfg(evows_shuttle)` shuttle decides who goes on at each of them: see `threads`.

#[cfg(not(all(test, evows_shuttle)))]
pub(super) use {
    parking_lot::{Mutex, RwLock},
    std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

#[cfg(all(test, evows_shuttle))]
pub(super) use self::model::{Mutex, RwLock};
#[cfg(all(test, evows_shuttle))]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// Shuttle's locks with the interface of `parking_lot`.
#[cfg(all(test, evows_shuttle))]
mod model {
    use shuttle::sync::{self, MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug, Default)]
    pub(in super::super) struct Mutex<T>(sync::Mutex<T>);

    #[derive(Debug, Default)]
    pub(in super::super) struct RwLock<T>(sync::RwLock<T>);

    // === impl Mutex ===

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    // === impl RwLock ===

    impl<T> RwLock<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(sync::RwLock::new(value))
        }

        pub(in super::super) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap()
        }

        pub(in super::super) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap()
        }
    }
}
